// The rows of an N:M matrix times a panel of a dense one; for nm_spmm.cpp and wrapped_nm_spmm.cpp.
#pragma once
#include <cstdint>

#include "simd.hpp"

namespace workbench::nm {
namespace {  // one copy per source file and instruction set
using namespace workbench::simd;

constexpr int panel_vectors = 8;                                   // of C's row: eight registers hold its sums
constexpr std::int64_t panel_floats = 8192;                        // of B: 32 KB, which the nearest cache holds
constexpr std::int64_t most_rows = 256, least_rows = 64, soon = 4;  // rows of a task; rows fetched before their turn

struct Operands {
    std::int64_t rows, k, columns;
    int n, m;
    const float *values;
    const std::uint8_t *positions;
    const float *b;
    float *out;
    std::int64_t kept() const { return k / m * n; }  // values in a row
};

// One row of C over some groups. With `keep` = 0 the pattern is known only now. Group g adds to chain g mod `chains`.
template <int vectors, int keep, int of>
inline void add_groups(const Operands &a, const float *values, const std::uint8_t *positions, std::int64_t groups,
                       const float *panel, float *out, bool first) {
    constexpr int chains = vectors > 4 ? 1 : vectors > 2 ? 2 : 4;  // enough sums at once to hide how long one takes
    constexpr std::int64_t width = vectors * W;
    const int n = keep ? keep : a.n, m = keep ? of : a.m;
    vf acc[chains][vectors];
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) acc[c][j] = c || first ? set1(0.0f) : load(out + j * W);
    const auto add_group = [&](vf(&sums)[vectors]) {
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) {
            const vf x = set1(values[i]);
            const float *line = panel + positions[i] * width;
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) sums[j] = fma(x, load(line + j * W), sums[j]);
        }
        values += n;
        positions += n;
        panel += m * width;
    };
    std::int64_t g = 0;
    for (; g + chains <= groups; g += chains)
#pragma GCC unroll 4
        for (int c = 0; c < chains; ++c) add_group(acc[c]);
    for (; g < groups; ++g) add_group(acc[0]);
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
        vf total = acc[0][j];
#pragma GCC unroll 4
        for (int c = 1; c < chains; ++c) total = add(total, acc[c][j]);
        store(out + j * W, total);
    }
}

}  // namespace
}  // namespace workbench::nm
