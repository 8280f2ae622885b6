// C = A B, A in blocks (BSR) of float32 or bfloat16, B dense float32. README.md in this folder says why it is as it is.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstring>

#include "panels.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

template <class S, int dims>
using In = nb::ndarray<const S, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;

constexpr int vectors = gemm_vectors, width = vectors * W;  // columns of C in registers
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
    const int workers = workbench::threads_worth_waking(threads, static_cast<double>(entries) * n, work_of_a_thread);
    const auto copy = [&](std::int64_t which, float *panel) {
        const std::int64_t column = which * width, there = std::min<std::int64_t>(width, n - column);
        for (std::int64_t p = 0; p < k; ++p) {
            const float *line = from + p * n + column;
            std::copy(line, line + there, panel + p * width);
            std::fill(panel + p * width + there, panel + (p + 1) * width, 0.0f);
        }
    };
    const auto rows = [&](std::int64_t which, std::int64_t begin, std::int64_t end, const float *panel) {
        workbench::Pace pace;
        for (std::int64_t i = begin; i < end; ++i) {
            block_row(a, i, panel, to + which * width, n, std::min<std::int64_t>(width, n - which * width));
            pace.step(1 + (a.starts[i + 1] - a.starts[i]) * a.height * a.width);
        }
    };
    workbench::for_panels<float>(panels, a.rows, k * width, workers, copy, rows);
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
