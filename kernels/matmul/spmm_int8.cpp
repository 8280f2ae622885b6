// SpMM of int8 weights in groups with uint8 activations, and their quantisation. README.md in this folder says why.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "elementwise.hpp"
#include "int8_tile.hpp"
#include "panels.hpp"
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

constexpr std::int64_t rows_between_looks = 64, cells_per_task = 1 << 15;
constexpr double work_of_a_thread = 30000;  // rows of groups and of sums of a panel: waking a thread takes longer

enum Function : int { linear, gelu_, relu, tanh_, exp_ };  // the order of `_FUNCTIONS` in spmm_int8.py

struct Weight {
    std::int64_t block_rows, height, k;
    const std::int64_t *groups;
    const Factor *data;
};

struct Finish {
    const std::int32_t *bias;
    const float *scale, *append, *steps;  // a step is a function, a factor and a summand
    std::int64_t step_count;
    float to_steps;  // 1 / out_scale
    int zero;
};

template <class Body>
void each(vf (&value)[vectors], Body body) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) value[j] = body(value[j]);
}

void apply(const float *step, vf (&value)[vectors]) {
    switch (static_cast<Function>(static_cast<int>(step[0]))) {
        case gelu_: return each(value, [](vf x) { return gelu(x); });
        case relu: return each(value, [](vf x) { return max(set1(0.0f), x); });
        case tanh_: return each(value, [](vf x) { return tanh(x); });
        case exp_: return each(value, [](vf x) { return workbench::simd::exp(x); });
        case linear: return each(value, [&](vf x) { return add(mul(x, set1(step[1])), set1(step[2])); });
    }
}

// Rounds to the nearest step, halves to even, and cuts; NaN becomes the least value.
template <class T>
void store_quantised(T *out, vf x, float to_steps, int zero) {
    constexpr int least = std::is_same_v<T, std::uint8_t> ? 0 : -128;
    const vf low = set1(static_cast<float>(least - zero)), high = set1(static_cast<float>(least + 255 - zero));
    store_bytes(out, smaller(max(mul(x, set1(to_steps)), low), high), zero);
}

// From sums to results: scale, add what was there, functions, and then the result's type.
template <class T>
void finish_row(const Finish &f, std::int64_t row, const std::int32_t *sums, const float *append, T *out) {
    const vf factor = set1(f.scale ? f.scale[row] : 1.0f);
    vf value[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
        value[j] = mul(to_float(sums + j * W), factor);
        if (append) value[j] = add(value[j], load(append + j * W));
    }
    for (std::int64_t s = 0; s < f.step_count; ++s) apply(f.steps + 3 * s, value);
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
        if constexpr (std::is_same_v<T, float>)
            store(out + j * W, value[j]);
        else
            store_quantised(out + j * W, value[j], f.to_steps, f.zero);
    }
}

template <class T>
void finish(const Finish &f, std::int64_t row, int rows, const std::int32_t *sums, T *out, const float *append,
            std::int64_t stride, std::int64_t there) {
    for (int r = 0; r < rows; ++r, sums += width, out += stride) {
        const float *added = append ? append + r * stride : nullptr;
        if constexpr (std::is_same_v<T, std::int32_t>) {
            std::copy(sums, sums + there, out);
        } else if (there == width) {
            finish_row(f, row + r, sums, added, out);
        } else {
            T whole[width];
            float padded[width] = {};
            if (added) std::copy(added, added + there, padded);
            finish_row(f, row + r, sums, added ? padded : nullptr, whole);
            std::copy(whole, whole + there, out);
        }
    }
}

template <class I, class T>
void block_row(const Weight &w, const I *columns, std::int64_t i, const Finish &f, const Cell *panel, T *out,
               const float *append, std::int64_t stride, std::int64_t there) {
    alignas(64) std::int32_t sums[4 * width];
    const std::int64_t begin = w.groups[i], groups = w.groups[i + 1] - begin;
    for (std::int64_t r = 0; r < w.height; r += 4) {
        const std::int64_t row = i * w.height + r;
        const int rows = static_cast<int>(std::min<std::int64_t>(w.height - r, 4));
        const std::int32_t *bias = f.bias ? f.bias + row : nullptr;
        const Factor *weights = w.data + 4 * (begin * w.height + r);
        T *to = out + row * stride;
        std::int32_t *held = sums;
        std::int64_t held_stride = width;
        if constexpr (std::is_same_v<T, std::int32_t>)
            if (there == width) held = to, held_stride = stride;
        switch (rows) {
            case 4: tile<4>(bias, columns + 4 * begin, weights, groups, 4 * w.height, panel, held, held_stride); break;
            case 3: tile<3>(bias, columns + 4 * begin, weights, groups, 4 * w.height, panel, held, held_stride); break;
            case 2: tile<2>(bias, columns + 4 * begin, weights, groups, 4 * w.height, panel, held, held_stride); break;
            default: tile<1>(bias, columns + 4 * begin, weights, groups, 4 * w.height, panel, held, held_stride);
        }
        if (held == sums) finish(f, row, rows, sums, to, append ? append + row * stride : nullptr, stride, there);
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
    Weight w{static_cast<std::int64_t>(indptr.shape(0)) - 1, static_cast<std::int64_t>(data.shape(1)),
             static_cast<std::int64_t>(x.shape(1)), indptr.data(), nullptr};
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
    std::unique_ptr<Factor[]> widened;
    if constexpr (std::is_same_v<Factor, std::int8_t>) {
        w.data = data.data();
    } else {
        widened.reset(new Factor[data.size() + 1]);
        std::copy(data.data(), data.data() + data.size(), widened.get());
        w.data = widened.get();
    }
    const std::int64_t across = (n + width - 1) / width, panels = outer * across;
    const double work = static_cast<double>(panels) * (groups * w.height + m);
    const auto copy = [&](std::int64_t which, Cell *panel) {
        const std::int64_t slab = which / across, column = which % across * width;
        pack(from + slab * w.k * n + column, w.k, n, std::min<std::int64_t>(width, n - column), panel);
    };
    const auto rows = [&](std::int64_t which, std::int64_t begin, std::int64_t end, const Cell *panel) {
        const std::int64_t corner = which / across * m * n + which % across * width;
        const std::int64_t there = std::min<std::int64_t>(width, n - which % across * width);
        const float *added = f.append ? f.append + corner : nullptr;
        workbench::in_runs(begin, end, rows_between_looks, [&](std::int64_t first, std::int64_t stop) {
            for (std::int64_t i = first; i < stop; ++i) block_row(w, columns, i, f, panel, to + corner, added, n, there);
        });
    };
    workbench::for_panels<Cell>(panels, w.block_rows, w.k * width, workbench::threads_worth_waking(threads, work, work_of_a_thread), copy, rows);
    return true;
}

// Smallest and largest value, 0 among them, and whether all are finite.
std::tuple<float, float, bool> value_range(In<float, 1> x, int threads) {
    const std::int64_t n = static_cast<std::int64_t>(x.shape(0)), tasks = (n + cells_per_task - 1) / cells_per_task;
    const float *from = x.data();
    const workbench::WithoutGil released;
    struct Part {
        float low = 0, high = 0, fault = 0;
    };
    std::vector<Part> parts(tasks);
    workbench::parallel_for(tasks, n < 2 * cells_per_task ? 1 : threads, [&](std::int64_t task, int) {
        const std::int64_t end = std::min(n, (task + 1) * cells_per_task);
        std::int64_t i = task * cells_per_task;
        constexpr int chains = 4;  // so many vectors at once, since each step waits for the one before it
        vf low[chains], high[chains], fault[chains];
#pragma GCC unroll 4
        for (int c = 0; c < chains; ++c) low[c] = high[c] = fault[c] = set1(0.0f);
        for (; i + chains * W <= end; i += chains * W)
#pragma GCC unroll 4
            for (int c = 0; c < chains; ++c) {
                const vf value = load(from + i + c * W);
                high[c] = max(value, high[c]);
                low[c] = smaller(value, low[c]);
                fault[c] = add(fault[c], mul(value, set1(0.0f)));  // 0, but NaN for what is not finite
            }
        Part found;
        for (int c = 0; c < chains; ++c) {
            found.low = std::min(found.low, -largest(sub(set1(0.0f), low[c])));
            found.high = std::max(found.high, largest(high[c]));
            found.fault += sum(fault[c]);
        }
        for (; i < end; ++i) {
            found.low = std::min(found.low, from[i]);
            found.high = std::max(found.high, from[i]);
            found.fault += from[i] * 0.0f;
        }
        parts[task] = found;
    });
    Part all;
    for (const Part &part : parts)
        all = {std::min(all.low, part.low), std::max(all.high, part.high), all.fault + part.fault};
    return {all.low, all.high, all.fault == 0.0f};
}

void quantize_u8(In<float, 1> x, double to_steps, int zero, Out<std::uint8_t, 1> out, int threads) {
    const std::int64_t n = static_cast<std::int64_t>(x.shape(0)), tasks = (n + cells_per_task - 1) / cells_per_task;
    const float *from = x.data(), factor = static_cast<float>(to_steps);
    std::uint8_t *to = out.data();
    const workbench::WithoutGil released;
    workbench::parallel_for(tasks, n < 2 * cells_per_task ? 1 : threads, [&](std::int64_t task, int) {
        const std::int64_t end = std::min(n, (task + 1) * cells_per_task);
        std::int64_t i = task * cells_per_task;
        for (; i + W <= end; i += W) store_quantised(to + i, load(from + i), factor, zero);
        if (i == end) return;
        float last[W] = {};
        std::uint8_t bytes[W];
        std::copy(from + i, from + end, last);
        store_quantised(bytes, load(last), factor, zero);
        std::copy(bytes, bytes + (end - i), to + i);
    });
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
    m.def("value_range", &value_range, nb::arg("x").noconvert(), nb::arg("threads"));
    m.def("quantize_u8", &quantize_u8, nb::arg("x").noconvert(), nb::arg("to_steps"), nb::arg("zero"),
          nb::arg("out").noconvert(), nb::arg("threads"));
    bind<std::uint16_t, std::int32_t>(m, "spmm_int8_to_int32");
    bind<std::uint16_t, float>(m, "spmm_int8_to_float32");
    bind<std::uint16_t, std::uint8_t>(m, "spmm_int8_to_uint8");
    bind<std::uint16_t, std::int8_t>(m, "spmm_int8_to_int8");
    bind<std::int32_t, std::int32_t>(m, "spmm_int8_to_int32");
    bind<std::int32_t, float>(m, "spmm_int8_to_float32");
    bind<std::int32_t, std::uint8_t>(m, "spmm_int8_to_uint8");
    bind<std::int32_t, std::int8_t>(m, "spmm_int8_to_int8");
}
