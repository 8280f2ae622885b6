// out += p V for compressed values of one head, quantised token by token: the weight of a token and its scale are one
// factor, so a unit of codes costs one multiply-add for each vector.
#pragma once
#include "quantised_scores.hpp"

namespace workbench::attention {
namespace {

constexpr std::int64_t together = 64;  // tokens whose factors are made ready at once

// U units of every token in a run, summed from zero, so that long caches round once a run; factors (R, tokens, groups).
template <int known, int R, int U>
void run_of_tokens(const Blocks &v, const std::uint8_t *codes, std::int64_t stride, const std::int64_t *group, const float *factors,
                   std::int64_t tokens, std::int64_t groups, float *out, std::int64_t ld) {
    const std::int64_t bytes = known != 0 ? codes::unit_bytes(known) : v.unit_bytes();
    vf sum[U][R][vectors];
#pragma GCC unroll 16
    for (int i = 0; i < U; ++i)
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) sum[i][r][j] = set1(0.0f);
    for (std::int64_t t = 0; t < tokens; ++t, codes += stride, factors += groups)
#pragma GCC unroll 16
        for (int i = 0; i < U; ++i) {
            vf level[vectors];
            codes::levels<known>(codes + i * bytes, v.bits, level);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                const vf factor = set1(factors[r * together * groups + group[i]]);
#pragma GCC unroll 4
                for (int j = 0; j < vectors; ++j) sum[i][r][j] = fma(level[j], factor, sum[i][r][j]);
            }
        }
#pragma GCC unroll 16
    for (int i = 0; i < U; ++i)
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) store(out + r * ld + 16 * i + j * W, add(load(out + r * ld + 16 * i + j * W), sum[i][r][j]));
}

template <int known, int R>
void all_units(const Blocks &v, const std::uint8_t *codes, std::int64_t units, const std::int64_t *group, const float *factors,
               std::int64_t tokens, std::int64_t groups, float *out, std::int64_t ld) {
    constexpr int most = accumulators / R >= 8 ? 8 : accumulators / R > 0 ? accumulators / R : 1;
    const std::int64_t stride = units * v.unit_bytes();
    std::int64_t i = 0;
    for (; i + most <= units; i += most)
        run_of_tokens<known, R, most>(v, codes + i * v.unit_bytes(), stride, group + i, factors, tokens, groups, out + 16 * i, ld);
    for (; i < units; ++i)
        run_of_tokens<known, R, 1>(v, codes + i * v.unit_bytes(), stride, group + i, factors, tokens, groups, out + 16 * i, ld);
}

// p (R, ld_p), out (R, width).
template <int R>
void value_sums_of_block(const Blocks &v, const Shape &s, std::int64_t block, std::int64_t b, std::int64_t h, const float *p,
                         std::int64_t ld, float *out, Scratch &scratch) {
    const std::int64_t groups = v.scale_groups, units = s.width() / 16, first = v.first_channel(s, h), width = s.width();
    const std::int64_t at = v.at(s, block, b, h), row = units * v.unit_bytes();
    const std::uint16_t *scale = v.scale + v.scales_at(s, block, b, h), *zero = v.zero + v.scales_at(s, block, b, h);
    const std::uint8_t *codes = v.codes + at * v.tokens * row;
    // Only the groups that this head's channels lie in count.
    const std::int64_t low = first / v.group, high = (first + s.d - 1) / v.group + 1, mine = high - low;
    const bool whole = v.whole_units(s);
    std::vector<std::int64_t> group(static_cast<std::size_t>(units));
    for (std::int64_t i = 0; i < units; ++i) group[static_cast<std::size_t>(i)] = (first + std::min(16 * i, s.d - 1)) / v.group - low;
    scratch.scaled.resize(static_cast<std::size_t>(R * together * mine));
    scratch.base.assign(static_cast<std::size_t>(R * mine), 0.0);
    scratch.wide.resize(static_cast<std::size_t>(2 * together * mine));
    float *factors = scratch.scaled.data(), *wide = scratch.wide.data();
    for (std::int64_t t0 = 0; t0 < v.tokens; t0 += together) {
        const std::int64_t tokens = std::min(together, v.tokens - t0), count = tokens * mine;
        if (mine == groups) {
            codes::widen_half(scale + t0 * groups, count, wide);
            codes::widen_half(zero + t0 * groups, count, wide + together * mine);
        } else {
            for (std::int64_t t = 0; t < tokens; ++t)
                for (std::int64_t g = 0; g < mine; ++g) {
                    wide[t * mine + g] = codes::one_half(scale[(t0 + t) * groups + low + g]);
                    wide[together * mine + t * mine + g] = codes::one_half(zero[(t0 + t) * groups + low + g]);
                }
        }
        for (int r = 0; r < R; ++r)
            for (std::int64_t t = 0; t < tokens; ++t) {
                const float weight = p[r * ld + t0 + t];
                for (std::int64_t g = 0; g < mine; ++g) {
                    factors[(r * together + t) * mine + g] = weight * wide[t * mine + g];
                    scratch.base[static_cast<std::size_t>(r * mine + g)] += static_cast<double>(weight) * wide[(together + t) * mine + g];
                }
            }
        if (whole) {
            switch (v.bits) {
                case 2: all_units<2, R>(v, codes + t0 * row, units, group.data(), factors, tokens, mine, out, width); break;
                case 4: all_units<4, R>(v, codes + t0 * row, units, group.data(), factors, tokens, mine, out, width); break;
                default: all_units<0, R>(v, codes + t0 * row, units, group.data(), factors, tokens, mine, out, width);
            }
            continue;
        }
        std::uint8_t code[16];
        for (std::int64_t t = 0; t < tokens; ++t)
            for (std::int64_t i = 0; i < units; ++i) {
                codes::unpack16(codes + (t0 + t) * row + i * v.unit_bytes(), v.bits, code);
                for (std::int64_t c = 16 * i; c < std::min(s.d, 16 * (i + 1)); ++c)
                    for (int r = 0; r < R; ++r)
                        out[r * width + c] += code[c - 16 * i] * factors[(r * together + t) * mine + (first + c) / v.group - low];
            }
    }
    for (int r = 0; r < R; ++r)
        for (std::int64_t c = 0; c < s.d; ++c) out[r * width + c] += static_cast<float>(scratch.base[static_cast<std::size_t>(r * mine + (first + c) / v.group - low)]);
}

// out += (p A) B^T
template <int R>
void value_sums_of_factors(const Blocks &v, const Shape &s, const std::uint16_t *factor, const std::uint16_t *basis, const float *p,
                           std::int64_t ld, float *out, Scratch &scratch) {
    scratch.wide.resize(static_cast<std::size_t>(s.d));
    for (int l = 0; l < v.rank; ++l) {
        codes::widen_half(basis + l * s.d, s.d, scratch.wide.data());
        for (int r = 0; r < R; ++r) {
            vf sum = set1(0.0f);
            for (std::int64_t t = 0; t < v.padded(); t += W) sum = fma(codes::load_half(factor + l * v.padded() + t), load(p + r * ld + t), sum);
            const float part = simd::sum(sum);
            for (std::int64_t c = 0; c < s.d; ++c) out[r * s.width() + c] += part * scratch.wide[static_cast<std::size_t>(c)];
        }
    }
}

// All blocks but their outliers, which lie token by token and are added for all heads together.
template <int R>
void value_sums(const Blocks &v, const Shape &s, std::int64_t b, std::int64_t h, const float *p, std::int64_t ld, float *out,
                Scratch &scratch) {
    for (std::int64_t block = 0; block < v.count; ++block, p += v.padded()) {
        value_sums_of_block<R>(v, s, block, b, h, p, ld, out, scratch);
        if (v.rank) value_sums_of_factors<R>(v, s, v.factor_of(s, block, b, h), v.basis_of(s, block, b, h), p, ld, out, scratch);
    }
}

// Where a channel of all heads belongs: its head, its place in the sums, and its group's low end behind the block's first.
struct Channel {
    std::int32_t head, sum, low;
};

inline std::vector<Channel> channels_of(const Blocks &v, const Shape &s) {
    std::vector<Channel> found(static_cast<std::size_t>(s.heads * s.d));
    for (std::int64_t h = 0; h < s.heads; ++h)
        for (std::int64_t c = 0; c < s.d; ++c)
            found[static_cast<std::size_t>(h * s.d + c)] = {
                static_cast<std::int32_t>(h), static_cast<std::int32_t>(h * s.groups() * s.width() + c),
                static_cast<std::int32_t>(v.scales_at(s, 0, 0, h) + (v.first_channel(s, h) + c) / v.group)};
    return found;
}

// Outliers of tokens begin .. end, counted over all blocks: out (query heads, width) += p S; false for one outside.
inline bool sums_of_outliers(const Blocks &v, const Shape &s, const std::vector<Channel> &channels, std::int64_t b, std::int64_t begin,
                             std::int64_t end, const float *p, std::int64_t ld, float *out) {
    const std::int64_t groups = s.groups(), width = s.width();
    for (std::int64_t token = begin; token < end; ++token) {
        const std::int64_t block = token / v.tokens, t = token % v.tokens, row = ((block * s.batch + b) * v.tokens + t) * v.each;
        const float *weight = p + block * v.padded() + t;
        const std::uint16_t *low = v.zero + v.scales_at(s, block, b, 0) + t * v.scale_groups, *place = v.place + row, *value = v.value + row;
        for (int e = 0; e < v.each; ++e) {
            if (place[e] >= s.heads * s.d) return false;
            const Channel channel = channels[place[e]];
            const float change = codes::one_half(value[e]) - codes::one_half(low[channel.low]);
            for (std::int64_t r = 0; r < groups; ++r) out[channel.sum + r * width] += weight[(channel.head * groups + r) * ld] * change;
        }
    }
    return true;
}

}  // namespace
}  // namespace workbench::attention
