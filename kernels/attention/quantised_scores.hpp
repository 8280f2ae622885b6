// s += K q for compressed keys of one head: codes are unpacked to floats 16 at a time and multiplied at once, for up to
// four queries together; low-rank part and outliers are added to the same scores.
#pragma once
#include <cstdint>
#include <vector>

#include "compressed_blocks.hpp"
#include "simd.hpp"

namespace workbench::attention {
namespace {

using namespace workbench::simd;
using codes::vectors;

#if defined(__AVX512F__)
constexpr int accumulators = 16;  // units of 16 floats held in registers
#elif defined(__AVX2__)
constexpr int accumulators = 4;
#else
constexpr int accumulators = 2;
#endif

struct Scratch {
    std::vector<float> scaled, wide, parts;
    std::vector<double> base;  // low ends, which the levels nearly cancel, are summed in double
};

// n / by for n below 2^16, without a division.
struct Quotient {
    std::uint64_t inverse;
    explicit Quotient(std::int64_t by) : inverse(((std::uint64_t(1) << 32) + static_cast<std::uint64_t>(by) - 1) / static_cast<std::uint64_t>(by)) {}
    std::int64_t operator()(std::int64_t n) const { return static_cast<std::int64_t>(static_cast<std::uint64_t>(n) * inverse >> 32); }
};

// Keys by channel: the scale goes to the query, one for each group of tokens; channels are added one after the other.
template <int known, int R, int U>
void run_of_units(const Blocks &k, const Shape &s, const std::uint8_t *codes, std::int64_t first, const float *scaled, float *scores,
                  std::int64_t ld) {
    const std::int64_t stride = k.units() * k.unit_bytes(), bytes = known != 0 ? codes::unit_bytes(known) : k.unit_bytes();
    vf sum[U][R][vectors];
    std::int64_t group[U];
#pragma GCC unroll 16
    for (int i = 0; i < U; ++i) {
        group[i] = k.scale_groups == 1 ? 0 : 16 * (first + i) / k.group;
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) sum[i][r][v] = load(scores + r * ld + 16 * (first + i) + v * W);
    }
    const std::uint8_t *from = codes + first * bytes;
    const float *steps = scaled;
    for (std::int64_t c = 0; c < s.d; ++c, from += stride, steps += k.scale_groups) {
        __builtin_prefetch(from + U * bytes, 0, 2);  // the next run reads on where this one ends
#pragma GCC unroll 16
        for (int i = 0; i < U; ++i) {
            vf level[vectors];
            codes::levels<known>(from + i * bytes, k.bits, level);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const vf step = set1(steps[r * s.d * k.scale_groups + group[i]]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) sum[i][r][v] = fma(level[v], step, sum[i][r][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < U; ++i)
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) store(scores + r * ld + 16 * (first + i) + v * W, sum[i][r][v]);
}

template <int known, int R>
void all_runs(const Blocks &k, const Shape &s, const std::uint8_t *codes, const float *scaled, float *scores, std::int64_t ld) {
    constexpr int most = accumulators / R > 0 ? accumulators / R : 1;
    std::int64_t first = 0;
    for (; first + most <= k.units(); first += most) run_of_units<known, R, most>(k, s, codes, first, scaled, scores, ld);
    if constexpr (most > 4)
        for (; first + 4 <= k.units(); first += 4) run_of_units<known, R, 4>(k, s, codes, first, scaled, scores, ld);
    for (; first < k.units(); ++first) run_of_units<known, R, 1>(k, s, codes, first, scaled, scores, ld);
}

template <int R>
void scores_by_channel(const Blocks &k, const Shape &s, std::int64_t at, const std::uint16_t *scale, const std::uint16_t *zero,
                       const float *q, float *scores, std::int64_t ld, Scratch &scratch) {
    const std::int64_t groups = k.scale_groups, width = s.width();
    scratch.scaled.resize(static_cast<std::size_t>(R * s.d * groups));
    scratch.base.assign(static_cast<std::size_t>(R * groups), 0.0);
    scratch.wide.resize(static_cast<std::size_t>(2 * groups));
    float *wide = scratch.wide.data();
    for (std::int64_t c = 0; c < s.d; ++c) {
        codes::widen_half(scale + c * groups, groups, wide);
        codes::widen_half(zero + c * groups, groups, wide + groups);
        for (int r = 0; r < R; ++r) {
            const float x = q[r * width + c];
            float *scaled = scratch.scaled.data() + (r * s.d + c) * groups;
            double *base = scratch.base.data() + r * groups;
            for (std::int64_t g = 0; g < groups; ++g) scaled[g] = x * wide[g], base[g] += static_cast<double>(x) * wide[groups + g];
        }
    }
    for (int r = 0; r < R; ++r)
        for (std::int64_t g = 0; g < groups; ++g) {
            const float base = static_cast<float>(scratch.base[static_cast<std::size_t>(r * groups + g)]);
            for (std::int64_t t = g * k.group; t < std::min(k.tokens, (g + 1) * k.group); ++t) scores[r * ld + t] += base;
        }
    const std::uint8_t *codes = k.codes + at * s.d * k.units() * k.unit_bytes();
    if (!k.whole_units(s)) {
        std::uint8_t code[16];
        for (std::int64_t c = 0; c < s.d; ++c)
            for (std::int64_t u = 0; u < k.units(); ++u) {
                codes::unpack16(codes + (c * k.units() + u) * k.unit_bytes(), k.bits, code);
                for (std::int64_t t = 16 * u; t < std::min(k.tokens, 16 * (u + 1)); ++t)
                    for (int r = 0; r < R; ++r)
                        scores[r * ld + t] += code[t - 16 * u] * scratch.scaled[static_cast<std::size_t>((r * s.d + c) * groups + t / k.group)];
            }
        return;
    }
    const float *scaled = scratch.scaled.data();
    switch (k.bits) {
        case 2: all_runs<2, R>(k, s, codes, scaled, scores, ld); break;
        case 4: all_runs<4, R>(k, s, codes, scaled, scores, ld); break;
        default: all_runs<0, R>(k, s, codes, scaled, scores, ld);
    }
}

// Keys by token: each group of channels gives one sum, which its scale multiplies. Where groups end inside a unit of codes,
// numbers are taken one by one.
template <int R>
void scores_by_token_slowly(const Blocks &k, const Shape &s, const std::uint8_t *codes, std::int64_t first, const std::uint16_t *scale,
                            const std::uint16_t *zero, const float *q, float *scores, std::int64_t ld) {
    const std::int64_t units = s.width() / 16;
    for (std::int64_t t = 0; t < k.tokens; ++t, codes += units * k.unit_bytes())
        for (std::int64_t c0 = 0; c0 < s.d;) {
            const std::int64_t g = (first + c0) / k.group, end = std::min(s.d, (g + 1) * k.group - first), at = t * k.scale_groups + g;
            for (int r = 0; r < R; ++r) {
                float sum = 0, whole = 0;
                std::uint8_t code[16];
                std::int64_t unit = -1;
                for (std::int64_t c = c0; c < end; ++c) {
                    if (c / 16 != unit) unit = c / 16, codes::unpack16(codes + unit * k.unit_bytes(), k.bits, code);
                    sum += q[r * s.width() + c] * code[c % 16], whole += q[r * s.width() + c];
                }
                scores[r * ld + t] += codes::one_half(scale[at]) * sum + codes::one_half(zero[at]) * whole;
            }
            c0 = end;
        }
}

template <int known, int R>
void scores_by_whole_units(const Blocks &k, const Shape &s, const std::uint8_t *codes, std::int64_t first, const std::uint16_t *scale,
                           const std::uint16_t *zero, const float *q, float *scores, std::int64_t ld, Scratch &scratch) {
    const std::int64_t units = s.width() / 16, low = first / k.group, groups = (first + s.d - 1) / k.group + 1 - low;
    const std::int64_t bytes = known != 0 ? codes::unit_bytes(known) : k.unit_bytes();
    scratch.parts.assign(static_cast<std::size_t>(R * groups), 0.0f);  // the sum of the query over each group
    for (int r = 0; r < R; ++r)
        for (std::int64_t c = 0; c < s.d; ++c) scratch.parts[static_cast<std::size_t>(r * groups + (first + c) / k.group - low)] += q[r * s.width() + c];
    for (std::int64_t t = 0; t < k.tokens; ++t)
        for (std::int64_t g = 0, i = 0; g < groups; ++g) {
            const std::int64_t end = g + 1 == groups ? units : ((low + g + 1) * k.group - first) / 16, at = t * k.scale_groups + low + g;
            vf part[R];
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) part[r] = set1(0.0f);
            for (; i < end; ++i, codes += bytes) {
                vf level[vectors];
                codes::levels<known>(codes, k.bits, level);
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
                    for (int v = 0; v < vectors; ++v) part[r] = fma(level[v], load(q + r * s.width() + 16 * i + v * W), part[r]);
            }
            const float a = codes::one_half(scale[at]), z = codes::one_half(zero[at]);
            for (int r = 0; r < R; ++r) scores[r * ld + t] += a * sum(part[r]) + z * scratch.parts[static_cast<std::size_t>(r * groups + g)];
        }
}

template <int R>
void scores_by_token(const Blocks &k, const Shape &s, std::int64_t at, std::int64_t h, const std::uint16_t *scale,
                     const std::uint16_t *zero, const float *q, float *scores, std::int64_t ld, Scratch &scratch) {
    const std::int64_t first = k.first_channel(s, h);
    const std::uint8_t *codes = k.codes + at * k.tokens * (s.width() / 16) * k.unit_bytes();
    if (!k.whole_units(s)) return scores_by_token_slowly<R>(k, s, codes, first, scale, zero, q, scores, ld);
    switch (k.bits) {
        case 2: return scores_by_whole_units<2, R>(k, s, codes, first, scale, zero, q, scores, ld, scratch);
        case 4: return scores_by_whole_units<4, R>(k, s, codes, first, scale, zero, q, scores, ld, scratch);
        default: return scores_by_whole_units<0, R>(k, s, codes, first, scale, zero, q, scores, ld, scratch);
    }
}

// s += (q B) A^T
template <int R>
void scores_of_factors(const Blocks &k, const Shape &s, const std::uint16_t *factor, const std::uint16_t *basis, const float *q,
                       float *scores, std::int64_t ld, Scratch &scratch) {
    scratch.wide.resize(static_cast<std::size_t>(s.d));
    scratch.parts.assign(static_cast<std::size_t>(R * k.rank), 0.0f);
    for (int l = 0; l < k.rank; ++l) {
        codes::widen_half(basis + l * s.d, s.d, scratch.wide.data());
        for (int r = 0; r < R; ++r) {
            float sum = 0;
            for (std::int64_t c = 0; c < s.d; ++c) sum += q[r * s.width() + c] * scratch.wide[static_cast<std::size_t>(c)];
            scratch.parts[static_cast<std::size_t>(r * k.rank + l)] = sum;
        }
    }
    for (std::int64_t t = 0; t < k.padded(); t += W)
        for (int r = 0; r < R; ++r) {
            vf sum = load(scores + r * ld + t);
            for (int l = 0; l < k.rank; ++l)
                sum = fma(codes::load_half(factor + l * k.padded() + t), set1(scratch.parts[static_cast<std::size_t>(r * k.rank + l)]), sum);
            store(scores + r * ld + t, sum);
        }
}

// Outliers of keys, by channel: where they lie the code is 0, so the low end of the group is what they replace.
template <int R>
bool scores_of_outliers(const Blocks &k, const Shape &s, std::int64_t at, std::int64_t h, const std::uint16_t *zero, const float *q,
                        float *scores, std::int64_t ld) {
    const std::int64_t first = k.first_channel(s, h);
    const Quotient group_of(k.group);
    const std::uint16_t *place = k.place + at * s.d * k.each, *value = k.value + at * s.d * k.each;
    for (std::int64_t c = 0; c < s.d; ++c) {
        const std::uint16_t *low = k.by_channel ? zero + c * k.scale_groups : zero + (first + c) / k.group;
        for (int e = 0; e < k.each; ++e, ++place, ++value) {
            const std::int64_t t = *place;
            if (t >= k.tokens) return false;
            const float change = codes::one_half(*value) - codes::one_half(low[k.by_channel ? group_of(t) : t * k.scale_groups]);
            for (int r = 0; r < R; ++r) scores[r * ld + t] += q[r * s.width() + c] * change;
        }
    }
    return true;
}

// All blocks, for R queries of one head: q (R, width), scores (R, ld); false for an outlier outside its block.
template <int R>
bool key_scores(const Blocks &k, const Shape &s, std::int64_t b, std::int64_t h, const float *q, float *scores, std::int64_t ld,
                Scratch &scratch) {
    bool fine = true;
    for (std::int64_t block = 0; block < k.count && fine; ++block, scores += k.padded()) {
        const std::int64_t at = k.at(s, block, b, h);
        const std::uint16_t *scale = k.scale + k.scales_at(s, block, b, h), *zero = k.zero + k.scales_at(s, block, b, h);
        if (k.by_channel)
            scores_by_channel<R>(k, s, at, scale, zero, q, scores, ld, scratch);
        else
            scores_by_token<R>(k, s, at, h, scale, zero, q, scores, ld, scratch);
        if (k.rank) scores_of_factors<R>(k, s, k.factor_of(s, block, b, h), k.basis_of(s, block, b, h), q, scores, ld, scratch);
        if (k.each) fine = scores_of_outliers<R>(k, s, at, h, zero, q, scores, ld);
    }
    return fine;
}

}  // namespace
}  // namespace workbench::attention
