// One cache of keys or values as the loops see it: equal blocks of tokens, one behind the other, each [batch, head, ...].
// compressed_blocks.py says what the arrays hold.
#pragma once
#include <algorithm>
#include <cstdint>

#include "packed_codes.hpp"

namespace workbench::attention {

struct Shape {
    std::int64_t batch, query_heads, heads, d;
    std::int64_t groups() const { return query_heads / heads; }  // queries that share a head of keys
    std::int64_t width() const { return (d + 15) / 16 * 16; }    // of a row, padded to whole units of codes
};

struct Blocks {
    std::int64_t count, tokens, group;
    int bits, rank, each;  // each: outliers of a vector
    bool by_channel;
    std::int64_t scale_heads, scale_groups, factor_heads;
    const std::uint8_t *codes;
    const std::uint16_t *scale, *zero, *factor, *basis, *place, *value;

    std::int64_t units() const { return (tokens + 15) / 16; }
    std::int64_t padded() const { return units() * 16; }
    std::int64_t unit_bytes() const { return codes::unit_bytes(bits); }
    // Where a head's part of a block begins, in units of what each head of each block has.
    std::int64_t at(const Shape &s, std::int64_t block, std::int64_t b, std::int64_t h) const { return (block * s.batch + b) * s.heads + h; }
    // The scales of a head (by channel: of its first channel; by token: of the first token).
    std::int64_t scales_at(const Shape &s, std::int64_t block, std::int64_t b, std::int64_t h) const {
        if (by_channel) return at(s, block, b, h) * s.d * scale_groups;
        const std::int64_t heads = scale_heads, head = heads == 1 ? 0 : h;
        return ((block * s.batch + b) * heads + head) * tokens * scale_groups;
    }
    // Groups are counted within a head where each head has its own, else over the channels of all heads.
    std::int64_t first_channel(const Shape &s, std::int64_t h) const { return scale_heads == 1 ? h * s.d : 0; }
    const std::uint16_t *factor_of(const Shape &s, std::int64_t block, std::int64_t b, std::int64_t h) const {
        const std::int64_t head = factor_heads == 1 ? 0 : h;
        return factor + ((block * s.batch + b) * factor_heads + head) * rank * padded();
    }
    const std::uint16_t *basis_of(const Shape &s, std::int64_t block, std::int64_t b, std::int64_t h) const {
        return basis + at(s, block, b, h) * rank * s.d;
    }
    // Where every unit of 16 lies in one group, a unit has one scale.
    bool whole_units(const Shape &s) const {
        if (by_channel) return scale_groups == 1 || group % 16 == 0;
        return (scale_heads == 1 ? (scale_groups == 1 || (group % 16 == 0 && s.d % 16 == 0)) : (scale_groups == 1 || group % 16 == 0));
    }
};

}  // namespace workbench::attention
