// Which pairs block-sparse attention computes: its shape, the rules of a head, and the tiles that they cut.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

namespace workbench::attention {
namespace {  // one copy per source file and instruction set

template <class S>
constexpr S minus_inf = -std::numeric_limits<S>::infinity();

inline int whole_vectors(int n) { return (n + 15) / 16 * 16; }

struct Shape {
    std::int64_t batches, q_heads, key_heads, tq, tk;
    int d, dv, block;
    bool causal;
    std::int64_t first() const { return causal ? tk - tq : 0; }  // position of the first query
    std::int64_t first_row() const { return first() / block; }   // block rows begin where blocks of keys do
    std::int64_t row_blocks() const { return tq == 0 ? 0 : (first() + tq + block - 1) / block - first_row(); }
    std::int64_t key_blocks() const { return (tk + block - 1) / block; }
    std::int64_t query_begin(std::int64_t qb) const { return std::max<std::int64_t>((first_row() + qb) * block - first(), 0); }
    std::int64_t query_end(std::int64_t qb) const { return std::min((first_row() + qb + 1) * block - first(), tq); }
    int keys_in(std::int64_t kb) const { return static_cast<int>(std::min<std::int64_t>(block, tk - kb * block)); }
    int key_head(std::int64_t head) const { return static_cast<int>(head / q_heads * key_heads + head % q_heads / (q_heads / key_heads)); }
    int width() const { return whole_vectors(d); }
    int v_width() const { return whole_vectors(dv); }
    int stride() const { return whole_vectors(block); }
    std::int64_t turned(int columns) const { return key_blocks() * columns * stride(); }  // room of a head's turned blocks
};

// What says which pairs count, of one head. A null pointer is a rule that is not given.
template <class S>
struct Rules {
    const std::uint8_t *blocks;    // (row blocks, key blocks)
    const std::int32_t *position;  // (tk) original position of each key slot, else the slot itself
    const std::uint8_t *allowed;   // whether a query may see a key, by original position
    const S *added;                // or what is added to their score
    std::int64_t by_query, by_key; // strides of either
};

template <class S>
struct Tile {  // queries from ``query`` on and keys of one block from slot ``key`` on
    std::int64_t query, key;
    int rows, keys;
};

enum class Hidden { none, some, all };  // some: also where something is added

template <class S>
S added_to(const Rules<S> &rules, std::int64_t query, std::int64_t position) {
    const std::int64_t at = query * rules.by_query + position * rules.by_key;
    if (rules.allowed) return rules.allowed[at] ? S(0) : minus_inf<S>;
    return rules.added ? rules.added[at] : S(0);
}

template <class S>
bool sees(const Shape &s, const Rules<S> &rules, std::int64_t query, std::int64_t key) {
    const std::int64_t position = rules.position ? rules.position[key] : key;
    return (!s.causal || position <= s.first() + query) && added_to(rules, query, position) != minus_inf<S>;
}

template <class S>
Hidden hidden_by_mask(const Rules<S> &rules, const Tile<S> &tile) {
    if (!rules.allowed && !rules.added) return Hidden::none;
    bool any_open = false, any_other = false;
    for (int i = 0; i < (rules.by_query ? tile.rows : 1); ++i)
        for (int j = 0; j < tile.keys; ++j) {
            const std::int64_t key = tile.key + j;
            const S extra = added_to(rules, tile.query + i, rules.position ? rules.position[key] : key);
            any_open |= extra != minus_inf<S>;
            any_other |= extra != S(0);
        }
    return !any_open ? Hidden::all : any_other ? Hidden::some : Hidden::none;
}

template <class S>
Hidden hidden_by_order(const Shape &s, const Rules<S> &rules, const Tile<S> &tile) {
    if (!s.causal) return Hidden::none;
    std::int64_t earliest = tile.key, latest = tile.key + tile.keys - 1;
    if (rules.position) {
        const auto [low, high] = std::minmax_element(rules.position + tile.key, rules.position + tile.key + tile.keys);
        earliest = *low, latest = *high;
    }
    const std::int64_t begin = s.first() + tile.query, end = begin + tile.rows - 1;
    return earliest > end ? Hidden::all : latest > begin ? Hidden::some : Hidden::none;
}

template <class S>
Hidden hidden_in(const Shape &s, const Rules<S> &rules, const Tile<S> &tile) {
    const Hidden order = hidden_by_order(s, rules, tile);
    return order == Hidden::all ? order : std::max(order, hidden_by_mask(rules, tile));
}

// Puts ``value`` where a pair is hidden; else adds factor times what the mask adds.
template <class S>
void hide(const Shape &s, const Rules<S> &rules, const Tile<S> &tile, S value, S factor, S *scores, int ld) {
    for (int i = 0; i < tile.rows; ++i)
        for (int j = 0; j < tile.keys; ++j) {
            const std::int64_t key = tile.key + j, position = rules.position ? rules.position[key] : key;
            S &score = scores[static_cast<std::int64_t>(i) * ld + j];
            const S extra = s.causal && position > s.first() + tile.query + i ? minus_inf<S> : added_to(rules, tile.query + i, position);
            if (extra == minus_inf<S>)
                score = value;
            else if (extra != S(0))
                score += factor * extra;
        }
}

// Products over a tile that hides pairs run over all of it, with zeros where it hides. Zero times NaN or infinity is NaN,
// so where those stand the pairs are taken one by one, in the same order.
template <class S, class Use>
void for_pairs(const Shape &s, const Rules<S> &rules, const Tile<S> &tile, Use use) {
    for (int i = 0; i < tile.rows; ++i)
        for (int j = 0; j < tile.keys; ++j)
            if (sees(s, rules, tile.query + i, tile.key + j)) use(i, j);
}

// All heads' rules: pointers to the first head, and steps from batch to batch and from head to head.
template <class S>
struct AllRules {
    Rules<S> first;
    std::int64_t blocks_by_batch, blocks_by_head, mask_by_batch, mask_by_head;
    Rules<S> of(const Shape &s, std::int64_t head) const {
        const std::int64_t b = head / s.q_heads, h = head % s.q_heads, masked = b * mask_by_batch + h * mask_by_head;
        Rules<S> mine = first;
        mine.blocks += b * blocks_by_batch + h * blocks_by_head;
        if (mine.position) mine.position += s.key_head(head) * s.tk;
        if (mine.allowed) mine.allowed += masked;
        if (mine.added) mine.added += masked;
        return mine;
    }
};

}  // namespace
}  // namespace workbench::attention
