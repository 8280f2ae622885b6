// Layer normalisation of columns. A task takes some vectors of columns, so that its part of x stays in cache.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using MatrixOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Row = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr int vectors = 4;  // of columns at a time
constexpr std::int64_t elements_worth_a_thread = 1 << 15, rows_between_looks = 1 << 14;

struct Operands {
    std::int64_t width, n;
    const float *x, *weight, *bias;
    float eps, *out;
};

// body(row, pointer to this row of the columns); looks between runs of rows whether the call was cancelled.
template <class Body>
void over_rows(const Operands &a, Body body) {
    workbench::in_runs(0, a.width, rows_between_looks, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) body(i);
    });
}

template <int count>
void normalise(const Operands &a, std::int64_t column) {
    const float *x = a.x + column;
    float *out = a.out + column;
    const vf share = set1(1.0f / static_cast<float>(a.width));
    vf mean[count], spread[count];
    for (int j = 0; j < count; ++j) mean[j] = spread[j] = set1(0.0f);
    over_rows(a, [&](std::int64_t i) {
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j) mean[j] = add(mean[j], load(x + i * a.n + j * W));
    });
    for (int j = 0; j < count; ++j) mean[j] = mul(mean[j], share);
    over_rows(a, [&](std::int64_t i) {
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j) {
            const vf gap = sub(load(x + i * a.n + j * W), mean[j]);
            spread[j] = fma(gap, gap, spread[j]);
        }
    });
    for (int j = 0; j < count; ++j) {
        float lane[W];
        store(lane, spread[j]);
        for (int c = 0; c < W; ++c) lane[c] = 1.0f / std::sqrt(lane[c] / static_cast<float>(a.width) + a.eps);
        spread[j] = load(lane);
    }
    over_rows(a, [&](std::int64_t i) {
        const vf factor = set1(a.weight[i]), summand = set1(a.bias[i]);
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j)
            store(out + i * a.n + j * W,
                  fma(mul(sub(load(x + i * a.n + j * W), mean[j]), spread[j]), factor, summand));
    });
}

// Fewer columns than a vector has: by way of a copy of one vector's width.
void normalise_rest(const Operands &a, std::int64_t column) {
    const std::int64_t there = a.n - column;
    std::vector<float> in(a.width * W), out(a.width * W);
    for (std::int64_t i = 0; i < a.width; ++i) {
        std::copy(a.x + i * a.n + column, a.x + i * a.n + a.n, in.data() + i * W);
        std::fill(in.data() + i * W + there, in.data() + (i + 1) * W, 0.0f);
    }
    normalise<1>({a.width, W, in.data(), a.weight, a.bias, a.eps, out.data()}, 0);
    for (std::int64_t i = 0; i < a.width; ++i)
        std::copy(out.data() + i * W, out.data() + i * W + there, a.out + i * a.n + column);
}

void layer_norm_columns(Matrix x, Row weight, Row bias, double eps, MatrixOut out, int threads) {
    const Operands a{static_cast<std::int64_t>(x.shape(0)), static_cast<std::int64_t>(x.shape(1)), x.data(),
                     weight.data(), bias.data(), static_cast<float>(eps), out.data()};
    const workbench::WithoutGil released;
    constexpr std::int64_t together = vectors * W;
    const std::int64_t tasks = (a.n + together - 1) / together;
    workbench::parallel_for(tasks, a.width * a.n < 2 * elements_worth_a_thread ? 1 : threads, [&](std::int64_t task, int) {
        std::int64_t column = task * together;
        const std::int64_t end = std::min(a.n, column + together);
        if (column + together <= end) return normalise<vectors>(a, column);
        for (; column + W <= end; column += W) normalise<1>(a, column);
        if (column < end) normalise_rest(a, column);
    });
}

}  // namespace

WORKBENCH_BIND(layer_norm) {
    m.def("layer_norm_columns", &layer_norm_columns, nb::arg("x").noconvert(), nb::arg("weight").noconvert(),
          nb::arg("bias").noconvert(), nb::arg("eps"), nb::arg("out").noconvert(), nb::arg("threads"));
}
