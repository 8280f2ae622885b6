// Vectors turned as a square matrix: element j of vector i becomes element i of vector j.
#pragma once
#include <cstddef>
#include <utility>

#include "simd.hpp"

namespace workbench::simd {
namespace {  // one copy per source file and instruction set

template <class S>
using Vec = decltype(load(static_cast<const S *>(nullptr)));

// a0 b0 a1 b1 ... of the lower or upper halves.
template <class S, bool upper, std::size_t... i>
inline Vec<S> interleave(Vec<S> a, Vec<S> b, std::index_sequence<i...>) {
    return __builtin_shufflevector(a, b, ((i % 2 ? lanes<S> : 0) + i / 2 + (upper ? lanes<S> / 2 : 0))...);
}

// Turns lanes<S> vectors of as many elements. Every step brings element j of vector i one bit nearer to element i of
// vector j.
template <class S>
inline void turn(Vec<S> *v) {
    constexpr int n = lanes<S>;
    constexpr auto all = std::make_index_sequence<n>();
#pragma GCC unroll 8
    for (int step = 1; step < n; step *= 2) {
        Vec<S> next[n];
#pragma GCC unroll 16
        for (int i = 0; i < n / 2; ++i) {
            next[2 * i] = interleave<S, false>(v[i], v[i + n / 2], all);
            next[2 * i + 1] = interleave<S, true>(v[i], v[i + n / 2], all);
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) v[i] = next[i];
    }
}

// Vector i of the `left` vectors that are left when lanes<S> of them have been added by halves. Not a loop: compilers keep
// what a loop over loops reads in memory.
template <class S, int left, int i>
inline Vec<S> halved(const Vec<S> *v) {
    if constexpr (left == lanes<S>) {
        return v[i];
    } else {
        constexpr auto all = std::make_index_sequence<lanes<S>>();
        const Vec<S> a = halved<S, 2 * left, i>(v), b = halved<S, 2 * left, i + left>(v);
        return add(interleave<S, false>(a, b, all), interleave<S, true>(a, b, all));
    }
}

// Lane i of the answer is the sum of vector i.
template <class S>
inline Vec<S> sums(const Vec<S> *v) {
    return halved<S, 1, 0>(v);
}

}  // namespace
}  // namespace workbench::simd
