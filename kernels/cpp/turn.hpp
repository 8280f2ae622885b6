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

// Lane i of the answer is the sum of vector i.
template <class S>
inline Vec<S> sums(Vec<S> *v) {
    constexpr auto all = std::make_index_sequence<lanes<S>>();
#pragma GCC unroll 8
    for (int half = lanes<S> / 2; half > 0; half /= 2)
#pragma GCC unroll 16
        for (int i = 0; i < half; ++i)
            v[i] = add(interleave<S, false>(v[i], v[i + half], all), interleave<S, true>(v[i], v[i + half], all));
    return v[0];
}

}  // namespace
}  // namespace workbench::simd
