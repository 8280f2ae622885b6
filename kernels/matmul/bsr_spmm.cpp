// C = A B, A in blocks (BSR) of float32 or bfloat16, B dense float32. README.md in this folder says why it is as it is.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

template <class S, int dims>
using In = nb::ndarray<const S, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;

constexpr int vectors = gemm_vectors, width = vectors * W;  // columns of C in registers
constexpr std::int64_t tasks_of_a_thread = 8;
constexpr double work_of_a_thread = 2e6;  // multiply-adds: waking a thread takes as long

float widen(float x) { return x; }
float widen(std::uint16_t x) {  // bfloat16 is the upper half of a float
    const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}

template <class S>
struct Blocks {
    std::int64_t rows, height, width;  // block rows, and the sides of a block
    const std::int64_t *starts, *columns;
    const S *values;
};

// `rows` rows of one block row, kept in registers over all its blocks. `panel` holds `width` columns of B.
template <int rows, class S>
void tile(const Blocks<S> &a, std::int64_t i, std::int64_t first, const float *panel, float *out, std::int64_t stride) {
    vf acc[rows][vectors];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) acc[r][j] = set1(0.0f);
    for (std::int64_t p = a.starts[i]; p < a.starts[i + 1]; ++p) {
        const S *values = a.values + (p * a.height + first) * a.width;
        const float *line = panel + a.columns[p] * a.width * width;
        for (std::int64_t t = 0; t < a.width; ++t, line += width) {
            vf x[vectors];
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) x[j] = load(line + j * W);
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r) {
                const vf value = set1(widen(values[r * a.width + t]));
#pragma GCC unroll 8
                for (int j = 0; j < vectors; ++j) acc[r][j] = fma(value, x[j], acc[r][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) store(out + r * stride + j * W, acc[r][j]);
}

template <class S>
void block_row(const Blocks<S> &a, std::int64_t i, const float *panel, float *out, std::int64_t stride, std::int64_t there) {
    float whole[4 * width];
    for (std::int64_t r = 0; r < a.height; r += 4) {
        const std::int64_t rows = std::min<std::int64_t>(a.height - r, 4);
        float *to = out + (i * a.height + r) * stride, *held = there == width ? to : whole;
        const std::int64_t held_stride = there == width ? stride : width;
        switch (rows) {
            case 4: tile<4>(a, i, r, panel, held, held_stride); break;
            case 3: tile<3>(a, i, r, panel, held, held_stride); break;
            case 2: tile<2>(a, i, r, panel, held, held_stride); break;
            default: tile<1>(a, i, r, panel, held, held_stride);
        }
        if (held == whole)
            for (std::int64_t row = 0; row < rows; ++row) std::copy(whole + row * width, whole + row * width + there, to + row * stride);
    }
}

template <class S>
void bsr_spmm(In<std::int64_t, 1> indptr, In<std::int64_t, 1> indices, In<S, 3> values, In<float, 2> b,
              nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> out, int threads) {
    const Blocks<S> a{static_cast<std::int64_t>(indptr.shape(0)) - 1, static_cast<std::int64_t>(values.shape(1)),
                      static_cast<std::int64_t>(values.shape(2)), indptr.data(), indices.data(), values.data()};
    const std::int64_t k = static_cast<std::int64_t>(b.shape(0)), n = static_cast<std::int64_t>(b.shape(1));
    const float *from = b.data();
    float *to = out.data();
    const workbench::WithoutGil released;
    const std::int64_t panels = (n + width - 1) / width, entries = a.starts[a.rows] * a.height * a.width;
    std::int64_t workers = threads > 0 ? threads : workbench::get_num_threads();
    workers = std::clamp<std::int64_t>(static_cast<std::int64_t>(static_cast<double>(entries) * n / work_of_a_thread), 1, workers);
    // Small tasks, since a thread comes late to the first ones; rising order lets it keep its copy of a panel.
    const std::int64_t wanted = workers > 1 ? (tasks_of_a_thread * workers + panels - 1) / std::max<std::int64_t>(panels, 1) : 1;
    const std::int64_t parts = std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(1, a.rows / 8));
    struct Panel {
        std::unique_ptr<float[]> room;
        float *cells = nullptr;
        std::int64_t held = -1;
    };
    const auto copies = std::make_unique<Panel[]>(workers);
    workbench::parallel_for(panels * parts, static_cast<int>(workers), [&](std::int64_t task, int worker) {
        const std::int64_t which = task / parts, part = task % parts, column = which * width;
        const std::int64_t there = std::min<std::int64_t>(width, n - column);
        Panel &panel = copies[worker];
        if (!panel.room) {
            panel.room.reset(new float[k * width + 16]);
            panel.cells = panel.room.get() + (64 - reinterpret_cast<std::uintptr_t>(panel.room.get()) % 64) % 64 / sizeof(float);
        }
        if (panel.held != which)
            for (std::int64_t p = 0; p < k; ++p) {
                float *line = panel.cells + p * width;
                std::copy(from + p * n + column, from + p * n + column + there, line);
                std::fill(line + there, line + width, 0.0f);
            }
        panel.held = which;
        workbench::Pace pace;
        for (std::int64_t i = a.rows * part / parts; i < a.rows * (part + 1) / parts; ++i) {
            block_row(a, i, panel.cells, to + column, n, there);
            pace.step(1 + (a.starts[i + 1] - a.starts[i]) * a.height * a.width);
        }
    });
}

template <class S>
void bind(nb::module_ &m) {
    m.def("bsr_spmm", &bsr_spmm<S>, nb::arg("indptr"), nb::arg("indices"), nb::arg("values").noconvert(),
          nb::arg("b").noconvert(), nb::arg("out").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(bsr_spmm) {
    bind<float>(m);
    bind<std::uint16_t>(m);
}
