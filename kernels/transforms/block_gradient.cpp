// The gradient of block-diagonal matrices: for every block a product over the rows of x.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "block_stages.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::blocks;
using namespace workbench::simd;

namespace {

constexpr std::int64_t depth = 128, height = 96;  // rows of x, and rows of a block, of one step

// Features of one block in rows of x, (rows, count) of one part, the rest of each line cleared.
template <class T>
void gather(const Real<T> *x, std::int64_t stride, std::int64_t rows, std::int64_t count, std::int64_t inner, int part, std::int64_t width, Real<T> *to) {
    constexpr int parts = Parts<T>::count;
    for (std::int64_t r = 0; r < rows; ++r, x += stride, to += width) {
        for (std::int64_t i = 0; i < count; ++i) to[i] = x[i * inner * parts + part];
        std::fill(to + count, to + width, Real<T>(0));
    }
}

// out[k, o, i] = sum over rows b of g[b, output o of block k] conj(x[b, input i of block k]).
template <class T>
void chain_gradient(In<T, 2> x, In<T, 2> g, std::int64_t inner, Out<T, 3> out, int threads) {
    using S = Real<T>;
    constexpr int parts = Parts<T>::count;
    const Stage<T> a{static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(out.shape(1)), static_cast<std::int64_t>(out.shape(2)), inner, nullptr};
    const std::int64_t rows = static_cast<std::int64_t>(x.shape(0)), x_stride = static_cast<std::int64_t>(x.shape(1)) * parts,
                       g_stride = static_cast<std::int64_t>(g.shape(1)) * parts;
    const S *from = reinterpret_cast<const S *>(x.data()), *slope = reinterpret_cast<const S *>(g.data());
    S *to = reinterpret_cast<S *>(out.data());
    const workbench::WithoutGil released;
    const std::int64_t pieces = (a.out + height - 1) / height, width = (a.in + 15) / 16 * 16;
    const int workers = workbench::threads_worth_waking(threads, static_cast<double>(rows) * a.blocks * a.out * a.in * parts * parts, work_of_a_thread);
    std::vector<Room<S>> rooms(workers);
    workbench::parallel_for(a.blocks * pieces, workers, [&](std::int64_t task, int worker) {
        const std::int64_t k = task / pieces, first = task % pieces * height, high = std::min(height, a.out - first);
        S *xs = rooms[worker].of((parts * parts * depth + parts * high) * width + parts * depth * high);
        S *sum = xs + parts * parts * depth * width, *gs = sum + parts * high * width;
        std::fill_n(sum, parts * high * width, S(0));
        for (std::int64_t b = 0; b < rows; b += depth) {
            const std::int64_t count = std::min(depth, rows - b);
            workbench::check_stop();
            for (int part = 0; part < parts; ++part) {
                gather<T>(from + b * x_stride + a.input(k) * parts, x_stride, count, a.in, inner, part, width, xs + part * depth * width);
                gather<T>(slope + b * g_stride + (a.output(k) + first * inner) * parts, g_stride, count, high, inner, part, high, gs + part * depth * high);
            }
            const auto add_product = [&](int g_part, const S *right, int to_part) {
                gemm(static_cast<int>(high), static_cast<int>(width), static_cast<int>(count), gs + g_part * depth * high, 1, high, right, width,
                     sum + to_part * high * width, width, true);
            };
            add_product(0, xs, 0);
            if constexpr (parts == 2) {
                S *minus = xs + 2 * depth * width;
                for (std::int64_t i = 0; i < count * width; ++i) minus[i] = -xs[depth * width + i];
                add_product(1, xs + depth * width, 0);
                add_product(1, xs, 1);
                add_product(0, minus, 1);
            }
        }
        for (std::int64_t o = 0; o < high; ++o)
            for (std::int64_t i = 0; i < a.in; ++i)
                for (int part = 0; part < parts; ++part) to[((k * a.out + first + o) * a.in + i) * parts + part] = sum[(part * high + o) * width + i];
    });
}

template <class T>
void bind(nb::module_ &m) {
    m.def("block_gradient", &chain_gradient<T>, nb::arg("x").noconvert(), nb::arg("g").noconvert(), nb::arg("inner"), nb::arg("out").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(block_gradient) {
    bind<float>(m);
    bind<double>(m);
    bind<std::complex<float>>(m);
    bind<std::complex<double>>(m);
}
