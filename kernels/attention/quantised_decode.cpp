// One query token against a compressed cache: scores of compressed keys and of recent ones, one softmax over all of them,
// and the weighted sum of values, without forming a key or a value that was compressed.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "compressed_blocks.hpp"
#include "python_call.hpp"
#include "quantised_scores.hpp"
#include "quantised_sums.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::attention;
using namespace workbench::simd;

namespace {

using Bytes = nb::ndarray<const std::uint8_t, nb::c_contig, nb::device::cpu>;
using Halves = nb::ndarray<const std::uint16_t, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

constexpr float log2_e = 1.44269504f;
constexpr std::int64_t outlier_tasks = 16, least_outlier_tokens = 512;  // cuts that do not depend on the threads

// As CompressedBlocks of compressed_blocks.py hands itself over.
Blocks blocks_of(const nb::tuple &given) {
    const auto whole = [&](int i) { return nb::cast<std::int64_t>(given[static_cast<std::size_t>(i)]); };
    const auto halves = [&](int i) { return nb::cast<Halves>(given[static_cast<std::size_t>(i)], false).data(); };
    Blocks b{};
    b.count = whole(0), b.tokens = whole(1), b.group = whole(2), b.bits = static_cast<int>(whole(3));
    b.rank = static_cast<int>(whole(4)), b.each = static_cast<int>(whole(5)), b.by_channel = whole(6) != 0;
    b.scale_heads = whole(7), b.scale_groups = whole(8), b.factor_heads = whole(9);
    b.codes = nb::cast<Bytes>(given[10], false).data();
    b.scale = halves(11), b.zero = halves(12), b.factor = halves(13), b.basis = halves(14), b.place = halves(15), b.value = halves(16);
    return b;
}

std::vector<Blocks> all_blocks(const nb::list &given) {
    std::vector<Blocks> found;
    for (nb::handle one : given) found.push_back(blocks_of(nb::cast<nb::tuple>(one)));
    return found;
}

struct Step {
    Shape shape;
    std::vector<Blocks> keys, values;
    std::int64_t recent, room;
    const std::uint16_t *recent_keys, *recent_values;  // (b, h, room, d), half precision, of which recent tokens count
    const std::uint8_t *allowed;                       // (b, 1 or query heads, tokens), or null
    std::int64_t allowed_heads;
    std::int64_t padded = 0, tokens = 0;               // of all blocks
};

// For each run of heads that fits: 4 queries together, then 2, then 1.
template <class Body>
void in_fours(std::int64_t count, Body body) {
    std::int64_t r = 0;
    for (; r + 4 <= count; r += 4) body(std::integral_constant<int, 4>{}, r);
    for (; r + 2 <= count; r += 2) body(std::integral_constant<int, 2>{}, r);
    for (; r < count; ++r) body(std::integral_constant<int, 1>{}, r);
}

// Rows in half precision are widened once for all queries of their head.
void recent_scores(const Step &step, std::int64_t b, std::int64_t h, const float *q, float *scores, std::int64_t ld, std::vector<float> &wide) {
    const Shape &s = step.shape;
    wide.resize(static_cast<std::size_t>(s.d));
    const std::uint16_t *row = step.recent_keys + (b * s.heads + h) * step.room * s.d;
    for (std::int64_t t = 0; t < step.recent; ++t, row += s.d) {
        workbench::codes::widen_half(row, s.d, wide.data());
        for (std::int64_t r = 0; r < s.groups(); ++r) {
            vf part = set1(0.0f);
            std::int64_t c = 0;
            for (; c + W <= s.d; c += W) part = fma(load(q + r * s.width() + c), load(wide.data() + c), part);
            float dot = sum(part);
            for (; c < s.d; ++c) dot += q[r * s.width() + c] * wide[static_cast<std::size_t>(c)];
            scores[r * ld + t] = dot;
        }
    }
}

void recent_sums(const Step &step, std::int64_t b, std::int64_t h, const float *p, std::int64_t ld, float *out, std::vector<float> &wide) {
    const Shape &s = step.shape;
    wide.assign(static_cast<std::size_t>(s.width()), 0.0f);
    const std::uint16_t *row = step.recent_values + (b * s.heads + h) * step.room * s.d;
    for (std::int64_t t = 0; t < step.recent; ++t, row += s.d) {
        workbench::codes::widen_half(row, s.d, wide.data());
        for (std::int64_t r = 0; r < s.groups(); ++r) {
            const vf weight = set1(p[r * ld + t]);
            for (std::int64_t c = 0; c < s.width(); c += W)
                store(out + r * s.width() + c, fma(weight, load(wide.data() + c), load(out + r * s.width() + c)));
        }
    }
}

// Scores that count for nothing: what fills a block up to whole units, and what the mask forbids.
void rule_out(const Step &step, std::int64_t b, std::int64_t head, float *row) {
    constexpr float never = -std::numeric_limits<float>::infinity();
    const std::uint8_t *allowed = step.allowed;
    if (allowed) allowed += (b * step.allowed_heads + (step.allowed_heads == 1 ? 0 : head)) * (step.tokens + step.recent);
    for (const Blocks &k : step.keys)
        for (std::int64_t block = 0; block < k.count; ++block, row += k.padded()) {
            std::fill(row + k.tokens, row + k.padded(), never);
            if (!allowed) continue;
            for (std::int64_t t = 0; t < k.tokens; ++t)
                if (!*allowed++) row[t] = never;
        }
    for (std::int64_t t = 0; t < step.recent; ++t)
        if (allowed && !*allowed++) row[t] = never;
}

// Softmax in powers of two; a row without any allowed score becomes zero.
void softmax(float *row, std::int64_t padded) {
    vf best = load(row);
    for (std::int64_t t = W; t < padded; t += W) best = max(best, load(row + t));
    const float top = largest(best);
    if (top == -std::numeric_limits<float>::infinity()) {
        std::fill(row, row + padded, 0.0f);
        return;
    }
    vf mass = set1(0.0f);
    for (std::int64_t t = 0; t < padded; t += W) {
        const vf weight = exp2(sub(load(row + t), set1(top)));
        store(row + t, weight);
        mass = add(mass, weight);
    }
    const vf share = set1(1.0f / sum(mass));
    for (std::int64_t t = 0; t < padded; t += W) store(row + t, mul(load(row + t), share));
}

// Queries of one head of keys, (groups, width), times what makes their scores exponents of two.
void take_queries(const Shape &s, const float *q, std::int64_t b, std::int64_t h, float factor, std::vector<float> &to) {
    to.assign(static_cast<std::size_t>(s.groups() * s.width()), 0.0f);
    for (std::int64_t r = 0; r < s.groups(); ++r)
        for (std::int64_t c = 0; c < s.d; ++c)
            to[static_cast<std::size_t>(r * s.width() + c)] = factor * q[((b * s.query_heads + h * s.groups()) + r) * s.d + c];
}

bool scores_of_head(const Step &step, std::int64_t b, std::int64_t h, const float *q, float *scores, std::int64_t ld, Scratch &scratch) {
    bool fine = true;
    for (const Blocks &k : step.keys) {
        in_fours(step.shape.groups(), [&](auto count, std::int64_t r) {
            fine = fine && key_scores<count>(k, step.shape, b, h, q + r * step.shape.width(), scores + r * ld, ld, scratch);
        });
        scores += k.count * k.padded();
        workbench::check_stop();
    }
    return fine;
}

void sums_of_head(const Step &step, std::int64_t b, std::int64_t h, const float *p, float *out, std::int64_t ld, Scratch &scratch) {
    for (const Blocks &v : step.values) {
        in_fours(step.shape.groups(), [&](auto count, std::int64_t r) {
            value_sums<count>(v, step.shape, b, h, p + r * ld, ld, out + r * step.shape.width(), scratch);
        });
        p += v.count * v.padded();
        workbench::check_stop();
    }
}

// What the outliers of values add to (b, query heads, width), in cuts that are added in their order.
bool add_outliers(const Step &step, const float *weights, std::int64_t ld, float *sums, int threads) {
    const Shape &s = step.shape;
    std::atomic<bool> fine{true};
    const std::int64_t size = s.query_heads * s.width();
    std::int64_t offset = 0;
    for (const Blocks &v : step.values) {
        const std::int64_t tokens = v.count * v.tokens;
        const std::int64_t cuts = std::clamp<std::int64_t>(tokens / least_outlier_tokens, 1, outlier_tasks);
        if (v.each && tokens) {
            const std::vector<Channel> channels = channels_of(v, s);
            std::vector<float> parts(static_cast<std::size_t>(s.batch * cuts * size), 0.0f);
            workbench::parallel_for(s.batch * cuts, threads, [&](std::int64_t task, int) {
                const std::int64_t b = task / cuts, cut = task % cuts;
                const float *p = weights + b * s.query_heads * ld + offset;
                if (!sums_of_outliers(v, s, channels, b, tokens * cut / cuts, tokens * (cut + 1) / cuts, p, ld, parts.data() + task * size)) fine = false;
            });
            for (std::int64_t b = 0; b < s.batch; ++b)
                for (std::int64_t cut = 0; cut < cuts; ++cut)
                    for (std::int64_t i = 0; i < size; ++i) sums[b * size + i] += parts[static_cast<std::size_t>((b * cuts + cut) * size + i)];
        }
        offset += v.count * v.padded();
    }
    return fine;
}

Step step_of(const Floats &q, const nb::list &keys, const nb::list &values, std::int64_t heads) {
    Step step{};
    step.shape = {static_cast<std::int64_t>(q.shape(0)), static_cast<std::int64_t>(q.shape(1)), heads, static_cast<std::int64_t>(q.shape(2))};
    step.keys = all_blocks(keys), step.values = all_blocks(values);
    for (const Blocks &k : step.keys.empty() ? step.values : step.keys) step.padded += k.count * k.padded(), step.tokens += k.count * k.tokens;
    return step;
}

// q (b, query heads, d), recent keys and values (b, heads, room, d), out like q; false for an outlier out of place.
bool quantised_decode(Floats q, nb::list keys, nb::list values, Halves recent_keys, Halves recent_values, std::int64_t recent,
                      std::optional<Bytes> allowed, float scale, FloatsOut out, int threads) {
    Step step = step_of(q, keys, values, static_cast<std::int64_t>(recent_keys.shape(1)));
    step.recent = recent, step.room = static_cast<std::int64_t>(recent_keys.shape(2));
    step.recent_keys = recent_keys.data(), step.recent_values = recent_values.data();
    step.allowed = allowed ? allowed->data() : nullptr;
    step.allowed_heads = allowed ? static_cast<std::int64_t>(allowed->shape(1)) : 0;
    const Shape s = step.shape;
    const std::int64_t ld = step.padded + (step.recent + 15) / 16 * 16, width = s.width();
    std::atomic<bool> fine{true};
    const workbench::WithoutGil released;
    if (!ld) {
        std::fill(out.data(), out.data() + s.batch * s.query_heads * s.d, 0.0f);
        return true;
    }
    std::unique_ptr<float[]> weights(new float[static_cast<std::size_t>(s.batch * s.query_heads * ld)]);
    std::vector<float> sums(static_cast<std::size_t>(s.batch * s.query_heads * width), 0.0f);
    workbench::parallel_for(s.batch * s.heads, threads, [&](std::int64_t task, int) {
        const std::int64_t b = task / s.heads, h = task % s.heads, first = b * s.query_heads + h * s.groups();
        Scratch scratch;
        std::vector<float> mine, wide;
        take_queries(s, q.data(), b, h, scale * log2_e, mine);
        float *rows = weights.get() + first * ld;
        std::fill(rows, rows + s.groups() * ld, 0.0f);
        if (!scores_of_head(step, b, h, mine.data(), rows, ld, scratch)) fine = false;
        recent_scores(step, b, h, mine.data(), rows + step.padded, ld, wide);
        for (std::int64_t r = 0; r < s.groups(); ++r) {
            rule_out(step, b, h * s.groups() + r, rows + r * ld);
            std::fill(rows + r * ld + step.padded + step.recent, rows + (r + 1) * ld, -std::numeric_limits<float>::infinity());
            softmax(rows + r * ld, ld);
        }
        sums_of_head(step, b, h, rows, sums.data() + first * width, ld, scratch);
        recent_sums(step, b, h, rows + step.padded, ld, sums.data() + first * width, wide);
    });
    if (!add_outliers(step, weights.get(), ld, sums.data(), threads)) fine = false;
    for (std::int64_t i = 0; i < s.batch * s.query_heads; ++i) std::copy(sums.data() + i * width, sums.data() + i * width + s.d, out.data() + i * s.d);
    return fine;
}

// Scores of compressed keys alone: q (b, query heads, d), out (b, query heads, tokens).
bool quantised_scores(Floats q, nb::list keys, std::int64_t heads, FloatsOut out, int threads) {
    const Step step = step_of(q, keys, nb::list(), heads);
    const Shape s = step.shape;
    std::atomic<bool> fine{true};
    const workbench::WithoutGil released;
    workbench::parallel_for(s.batch * s.heads, threads, [&](std::int64_t task, int) {
        const std::int64_t b = task / s.heads, h = task % s.heads;
        Scratch scratch;
        std::vector<float> mine, rows(static_cast<std::size_t>(s.groups() * step.padded), 0.0f);
        take_queries(s, q.data(), b, h, 1.0f, mine);
        if (!scores_of_head(step, b, h, mine.data(), rows.data(), step.padded, scratch)) fine = false;
        for (std::int64_t r = 0; r < s.groups(); ++r) {
            float *to = out.data() + (b * s.query_heads + h * s.groups() + r) * step.tokens;
            const float *from = rows.data() + r * step.padded;
            for (const Blocks &k : step.keys)
                for (std::int64_t block = 0; block < k.count; ++block, from += k.padded(), to += k.tokens) std::copy(from, from + k.tokens, to);
        }
    });
    return fine;
}

// Weighted sums of compressed values alone: p (b, query heads, tokens), out (b, query heads, d).
bool quantised_sums(Floats p, nb::list values, std::int64_t heads, FloatsOut out, int threads) {
    Step step = step_of(Floats(out), nb::list(), values, heads);
    const Shape s = step.shape;
    const std::int64_t ld = step.padded, width = s.width();
    std::atomic<bool> fine{true};
    const workbench::WithoutGil released;
    std::vector<float> weights(static_cast<std::size_t>(s.batch * s.query_heads * ld), 0.0f);
    std::vector<float> sums(static_cast<std::size_t>(s.batch * s.query_heads * width), 0.0f);
    workbench::parallel_for(s.batch * s.heads, threads, [&](std::int64_t task, int) {
        const std::int64_t b = task / s.heads, h = task % s.heads, first = b * s.query_heads + h * s.groups();
        Scratch scratch;
        for (std::int64_t r = first; r < first + s.groups(); ++r) {
            const float *from = p.data() + r * step.tokens;
            float *to = weights.data() + r * ld;
            for (const Blocks &v : step.values)
                for (std::int64_t block = 0; block < v.count; ++block, from += v.tokens, to += v.padded()) std::copy(from, from + v.tokens, to);
        }
        sums_of_head(step, b, h, weights.data() + first * ld, sums.data() + first * width, ld, scratch);
    });
    if (!add_outliers(step, weights.data(), ld, sums.data(), threads)) fine = false;
    for (std::int64_t i = 0; i < s.batch * s.query_heads; ++i) std::copy(sums.data() + i * width, sums.data() + i * width + s.d, out.data() + i * s.d);
    return fine;
}

}  // namespace

WORKBENCH_BIND(quantised_decode_step) {
    m.def("quantised_decode", &quantised_decode, nb::arg("q").noconvert(), nb::arg("keys"), nb::arg("values"), nb::arg("recent_keys").noconvert(),
          nb::arg("recent_values").noconvert(), nb::arg("recent"), nb::arg("allowed").none(), nb::arg("scale"), nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("quantised_scores", &quantised_scores, nb::arg("q").noconvert(), nb::arg("keys"), nb::arg("heads"), nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("quantised_sums", &quantised_sums, nb::arg("p").noconvert(), nb::arg("values"), nb::arg("heads"), nb::arg("out").noconvert(), nb::arg("threads"));
}
