// One step of AdamW on chosen entries. A run of them is gathered into buffers that stay in cache, updated there with
// vectors, and scattered back; every entry is computed alike, so the bits do not depend on where a run begins.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace {

template <class S>
using Values = nb::ndarray<S, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class I>
using Places = nb::ndarray<const I, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Constants = nb::ndarray<const double, nb::shape<6>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t run = 256, entries_per_task = 1 << 14;

template <class S>
struct Rule {
    S keep, beta1, rest1, beta2, rest2, rate, inverse_root, eps;
};

template <class S, class I>
struct Operands {
    std::int64_t size, k;
    const I *index;
    const S *gradients;
    S *weights, *first, *second;
    Rule<S> rule;
};

// The first place that is out of range or not above the one before it, or -1.
template <class S, class I>
std::int64_t first_fault(const Operands<S, I> &a, std::int64_t begin, std::int64_t end) {
    const auto wrong = [&](std::int64_t p) {
        return (a.index[p] < 0) | (a.index[p] >= a.size) | (p > 0 && a.index[p] <= a.index[p - 1]);
    };
    if (begin == 0 && end > 0 && wrong(0)) return 0;
    bool fault = false;
    for (std::int64_t p = std::max<std::int64_t>(1, begin); p < end; ++p)  // branch-free, so that it fills vectors
        fault |= (a.index[p] < 0) | (a.index[p] >= a.size) | (a.index[p] <= a.index[p - 1]);
    if (!fault) return -1;
    for (std::int64_t p = begin; p < end; ++p)
        if (wrong(p)) return p;
    return -1;
}

// m, v and w of one run; all three and g are buffers of `run` entries or the arrays themselves.
template <class S>
void update(const Rule<S> &r, std::int64_t count, const S *g, S *m, S *v, S *w) {
#pragma GCC ivdep
    for (std::int64_t p = 0; p < count; ++p) {
        m[p] = r.beta1 * m[p] + r.rest1 * g[p];
        v[p] = r.beta2 * v[p] + r.rest2 * g[p] * g[p];
        w[p] = r.keep * w[p] - r.rate * (m[p] / (std::sqrt(v[p]) * r.inverse_root + r.eps));
    }
}

template <class S, class I, bool dense>
void take(const Operands<S, I> &a, std::int64_t begin, std::int64_t end) {
    S w[run], g[run];
    workbench::in_runs(begin, end, run, [&](std::int64_t from, std::int64_t to) {
        const I *at = a.index + from;
        const std::int64_t count = to - from;
        for (std::int64_t p = 0; p < count; ++p) w[p] = a.weights[at[p]];
        if constexpr (dense)
            for (std::int64_t p = 0; p < count; ++p) g[p] = a.gradients[at[p]];
        update(a.rule, count, dense ? g : a.gradients + from, a.first + from, a.second + from, w);
        for (std::int64_t p = 0; p < count; ++p) a.weights[at[p]] = w[p];
    });
}

// Returns the first faulty place, or -1 after the step; with a fault nothing has been changed.
template <class S, class I>
std::int64_t selected_adamw(Values<S> weights, Values<const S> gradients, Places<I> index, Values<S> first,
                            Values<S> second, Constants constants, bool dense, int threads) {
    const double *c = constants.data();
    const Rule<S> rule{S(c[0]), S(c[1]), S(1 - c[1]), S(c[2]), S(1 - c[2]), S(c[3]), S(1 / c[4]), S(c[5])};
    const Operands<S, I> a{static_cast<std::int64_t>(weights.shape(0)), static_cast<std::int64_t>(index.shape(0)),
                           index.data(), gradients.data(), weights.data(), first.data(), second.data(), rule};
    const workbench::WithoutGil released;
    const std::int64_t tasks = (a.k + entries_per_task - 1) / entries_per_task;
    const int workers = tasks < 2 ? 1 : threads;
    std::atomic<std::int64_t> fault{a.k};
    const auto each = [&](auto body) {
        workbench::parallel_for(tasks, workers, [&](std::int64_t task, int) {
            body(task * entries_per_task, std::min(a.k, (task + 1) * entries_per_task));
        });
    };
    each([&](std::int64_t begin, std::int64_t end) {
        const std::int64_t found = first_fault(a, begin, end);
        if (found < 0) return;
        std::int64_t least = fault;
        while (found < least && !fault.compare_exchange_weak(least, found)) {}
    });
    if (fault < a.k) return fault;
    each([&](std::int64_t begin, std::int64_t end) {
        if (dense) take<S, I, true>(a, begin, end);
        else take<S, I, false>(a, begin, end);
    });
    return -1;
}

template <class S, class I>
void bind(nb::module_ &m) {
    m.def("selected_adamw", &selected_adamw<S, I>, nb::arg("weights").noconvert(), nb::arg("gradients").noconvert(),
          nb::arg("index").noconvert(), nb::arg("first").noconvert(), nb::arg("second").noconvert(),
          nb::arg("constants").noconvert(), nb::arg("dense"), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(selected_adamw_steps) {
    bind<float, std::int32_t>(m);
    bind<float, std::int64_t>(m);
    bind<double, std::int32_t>(m);
    bind<double, std::int64_t>(m);
}
