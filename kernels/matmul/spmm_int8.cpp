// SpMM of int8 weights in groups with uint8 activations, and their quantisation. README.md in this folder says why.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>

#include "elementwise.hpp"
#include "int8_tile.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;
using namespace workbench::int8;

namespace {

template <class S, int dims>
using In = nb::ndarray<const S, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
template <class S, int dims>
using Out = nb::ndarray<S, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
template <class S, int dims>
using Maybe = std::optional<In<S, dims>>;

constexpr std::int64_t rows_between_looks = 64, cells_per_task = 1 << 16;
constexpr double groups_worth_a_thread = 4096;  // vector groups: waking a thread takes as long as about so many

enum Function : int { linear, gelu_, relu, tanh_, exp_ };  // the order of `_FUNCTIONS` in spmm_int8.py

struct Weight {
    std::int64_t block_rows, height, k;
    const std::int64_t *groups;
    const std::int8_t *data;
};

struct Finish {
    const std::int32_t *bias;
    const float *scale, *append, *steps;  // a step is a function, a factor and a summand
    std::int64_t step_count;
    float to_steps;  // 1 / out_scale
    int zero;
};

vf apply(const float *step, vf x) {
    switch (static_cast<Function>(static_cast<int>(step[0]))) {
        case gelu_: return gelu(x);
        case relu: return max(set1(0.0f), x);
        case tanh_: return tanh(x);
        case exp_: return workbench::simd::exp(x);
        case linear: break;
    }
    return add(mul(x, set1(step[1])), set1(step[2]));
}

// Rounds to the nearest step, halves to even; NaN becomes the least value.
template <class T>
vf quantised(vf x, float to_steps, int zero) {
    constexpr int least = std::is_same_v<T, std::uint8_t> ? 0 : -128;
    const vf steps = smaller(max(mul(x, set1(to_steps)), set1(static_cast<float>(least - zero))), set1(static_cast<float>(least + 255 - zero)));
    return add(round(steps), set1(static_cast<float>(zero)));
}

// From sums to results, in registers: scale, add what was there, functions, and then the result's type.
template <int rows, class T>
void finish(const Finish &f, std::int64_t row, const vi (&acc)[rows][vectors], T *out, std::int64_t stride, const float *append) {
    if constexpr (std::is_same_v<T, std::int32_t>) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) workbench::int8::store(out + r * stride + j * W, acc[r][j]);
    } else {
        vf value[rows][vectors];
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
            const vf factor = set1(f.scale ? f.scale[row + r] : 1.0f);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) {
                value[r][j] = mul(to_float(acc[r][j]), factor);
                if (append) value[r][j] = add(value[r][j], load(append + r * stride + j * W));
            }
        }
        for (std::int64_t s = 0; s < f.step_count; ++s)
            for (int r = 0; r < rows; ++r)
                for (int j = 0; j < vectors; ++j) value[r][j] = apply(f.steps + 3 * s, value[r][j]);
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) {
                T *to = out + r * stride + j * W;
                if constexpr (std::is_same_v<T, float>)
                    workbench::simd::store(to, value[r][j]);
                else
                    store_bytes(to, quantised<T>(value[r][j], f.to_steps, f.zero));
            }
    }
}

// `rows` rows of one block row. Where the panel sticks out of the matrix, by way of a whole tile.
template <int rows, class I, class T>
void tile(const Weight &w, const I *columns, std::int64_t block_row, std::int64_t first, const Finish &f,
          const Cell *panel, T *out, const float *append, std::int64_t stride, std::int64_t there) {
    const std::int64_t begin = w.groups[block_row], row = block_row * w.height + first;
    vi acc[rows][vectors];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) acc[r][j] = spread(f.bias ? f.bias[row + r] : 0);
    add_groups<rows>(columns + 4 * begin, w.data + 4 * (begin * w.height + first), w.groups[block_row + 1] - begin,
                     4 * w.height, panel, acc);
    out += row * stride;
    if (append) append += row * stride;
    if (there == width) return finish<rows>(f, row, acc, out, stride, append);
    T whole[rows * width];
    float added[rows * width] = {};
    if (append)
        for (int r = 0; r < rows; ++r) std::copy(append + r * stride, append + r * stride + there, added + r * width);
    finish<rows>(f, row, acc, whole, width, append ? added : nullptr);
    for (int r = 0; r < rows; ++r) std::copy(whole + r * width, whole + r * width + there, out + r * stride);
}

template <class I, class T>
void block_row(const Weight &w, const I *columns, std::int64_t i, const Finish &f, const Cell *panel, T *out,
               const float *append, std::int64_t stride, std::int64_t there) {
    std::int64_t r = 0;
    for (; r + 4 <= w.height; r += 4) tile<4>(w, columns, i, r, f, panel, out, append, stride, there);
    switch (w.height - r) {
        case 3: return tile<3>(w, columns, i, r, f, panel, out, append, stride, there);
        case 2: return tile<2>(w, columns, i, r, f, panel, out, append, stride, there);
        case 1: return tile<1>(w, columns, i, r, f, panel, out, append, stride, there);
        default: return;
    }
}

void pack(const std::uint8_t *from, std::int64_t k, std::int64_t stride, std::int64_t there, Cell *panel) {
    std::uint8_t whole[width] = {};
    for (std::int64_t p = 0; p < k; ++p) {
        if (there == width) {
            pack_row(from + p * stride, panel + p * width);
        } else {
            std::copy(from + p * stride, from + p * stride + there, whole);
            pack_row(whole, panel + p * width);
        }
    }
}

bool sound(const Weight &w, const std::int64_t groups) {
    bool rising = w.groups[0] == 0 && w.groups[w.block_rows] == groups;
    for (std::int64_t i = 0; i < w.block_rows; ++i) rising &= w.groups[i] <= w.groups[i + 1];
    return rising;
}

// False if the weight is not what it was checked to be.
template <class I, class T>
bool spmm_int8(In<std::int64_t, 1> indptr, In<I, 1> positions, In<std::int8_t, 3> data, In<std::uint8_t, 3> x,
               Maybe<std::int32_t, 1> bias, Maybe<float, 1> scale, Maybe<float, 3> append, In<float, 2> steps,
               double to_steps, int zero, Out<T, 3> out, int threads) {
    const Weight w{static_cast<std::int64_t>(indptr.shape(0)) - 1, static_cast<std::int64_t>(data.shape(1)),
                   static_cast<std::int64_t>(x.shape(1)), indptr.data(), data.data()};
    const Finish f{bias ? bias->data() : nullptr, scale ? scale->data() : nullptr, append ? append->data() : nullptr,
                   steps.data(), static_cast<std::int64_t>(steps.shape(0)), static_cast<float>(to_steps), zero};
    const std::int64_t m = static_cast<std::int64_t>(out.shape(1)), n = static_cast<std::int64_t>(out.shape(2));
    const std::int64_t groups = static_cast<std::int64_t>(data.shape(0)), outer = static_cast<std::int64_t>(out.shape(0));
    const I *columns = positions.data();
    const std::uint8_t *from = x.data();
    T *to = out.data();
    const workbench::WithoutGil released;
    I least = 0, most = 0;
    for (std::int64_t i = 0; i < 4 * groups; ++i) {
        least = std::min(least, columns[i]);
        most = std::max(most, columns[i]);
    }
    if (!sound(w, groups) || least < 0 || (groups > 0 && most >= w.k)) return false;
    const std::int64_t across = (n + width - 1) / width, panels = outer * across;
    const double work = static_cast<double>(panels) * (groups * w.height + m);
    std::int64_t workers = threads > 0 ? threads : workbench::get_num_threads();
    workers = std::clamp<std::int64_t>(static_cast<std::int64_t>(work / groups_worth_a_thread), 1, workers);
    const std::int64_t parts = panels % workers && panels < 4 * workers ? std::max<std::int64_t>(1, std::min(workers, w.block_rows)) : 1;
    struct Panel {
        std::unique_ptr<Cell[]> room;
        Cell *cells = nullptr;
        std::int64_t held = -1;
    };
    const auto copies = std::make_unique<Panel[]>(workers);
    workbench::parallel_for(panels * parts, static_cast<int>(workers), [&](std::int64_t task, int worker) {
        const std::int64_t which = task / parts, part = task % parts, slab = which / across, column = which % across * width;
        const std::int64_t there = std::min<std::int64_t>(width, n - column);
        Panel &panel = copies[worker];
        if (!panel.room) {
            panel.room.reset(new Cell[w.k * width + 64]);
            panel.cells = panel.room.get() + (64 - reinterpret_cast<std::uintptr_t>(panel.room.get()) % 64) % 64 / sizeof(Cell);
        }
        if (panel.held != which) pack(from + slab * w.k * n + column, w.k, n, there, panel.cells);
        panel.held = which;
        T *corner = to + slab * m * n + column;
        const float *added = f.append ? f.append + slab * m * n + column : nullptr;
        workbench::in_runs(w.block_rows * part / parts, w.block_rows * (part + 1) / parts, rows_between_looks, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) block_row(w, columns, i, f, panel.cells, corner, added, n, there);
        });
    });
    return true;
}

template <class I, class T>
void bind(nb::module_ &m, const char *name) {
    m.def(name, &spmm_int8<I, T>, nb::arg("indptr").noconvert(), nb::arg("positions").noconvert(),
          nb::arg("data").noconvert(), nb::arg("x").noconvert(), nb::arg("bias").noconvert().none(),
          nb::arg("scale").noconvert().none(), nb::arg("append").noconvert().none(), nb::arg("steps").noconvert(),
          nb::arg("to_steps"), nb::arg("zero"), nb::arg("out").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(spmm_int8) {
    bind<std::uint16_t, std::int32_t>(m, "spmm_int8_to_int32");
    bind<std::uint16_t, float>(m, "spmm_int8_to_float32");
    bind<std::uint16_t, std::uint8_t>(m, "spmm_int8_to_uint8");
    bind<std::uint16_t, std::int8_t>(m, "spmm_int8_to_int8");
    bind<std::int32_t, std::int32_t>(m, "spmm_int8_to_int32");
    bind<std::int32_t, float>(m, "spmm_int8_to_float32");
    bind<std::int32_t, std::uint8_t>(m, "spmm_int8_to_uint8");
    bind<std::int32_t, std::int8_t>(m, "spmm_int8_to_int8");
}
