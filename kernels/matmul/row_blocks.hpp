// Runs a row-wise product block by block, writing the result once and in place.
//
// How long the result is becomes known only while it is computed. A counting pass beforehand would cost almost as much
// as the product. Instead each worker computes a block of rows into a scratch area that stays in its cache, waits for
// its turn (blocks are handed out in rising order, so whoever it waits for is at work), learns the block's place, lets
// the next one go on and copies. What is written does not depend on who computed it.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "csr.hpp"
#include "output_buffer.hpp"
#include "thread_pool.hpp"

namespace workbench {

// Loops may store whole vectors: this many entries behind a row's last may be overwritten.
constexpr std::int64_t slack = 64;

struct RowBlocks {
    std::vector<std::int64_t> first;  // block w holds rows [first[w], first[w + 1])
    std::int64_t largest = 0;         // most entries that one block can yield
    std::int64_t entries = 0;         // most entries that all blocks can yield

    std::int64_t count() const { return static_cast<std::int64_t>(first.size()) - 1; }
};

// Cut rows into runs of at most max_entries result entries and max_products products (a block has at least one row).
inline RowBlocks cut_rows(const std::int64_t *products, std::int64_t rows, std::int64_t cols, std::int64_t max_entries,
                          std::int64_t max_products) {
    RowBlocks blocks;
    blocks.first.push_back(0);
    std::int64_t entries = 0, work = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t need = std::min(products[i], cols);
        if (i > blocks.first.back() && (entries + need > max_entries || work + products[i] > max_products)) {
            blocks.first.push_back(i);
            entries = work = 0;
        }
        entries += need;
        work += products[i] + 4;
        blocks.largest = std::max(blocks.largest, entries);
        blocks.entries += need;
    }
    if (rows > 0) blocks.first.push_back(rows);
    return blocks;
}

// Blocks take their places in the result one after the other.
class Turnstile {
  public:
    bool is_open(std::int64_t block) const { return turn_.load(std::memory_order_acquire) == block; }

    // -> where the block's entries go
    std::int64_t pass(std::int64_t block, std::int64_t entries) {
        for (int spin = 0; spin < 2000 && !is_open(block); ++spin) pause();
        for (std::int64_t now; (now = turn_.load(std::memory_order_acquire)) != block;) turn_.wait(now);
        const std::int64_t place = filled_;
        filled_ += entries;
        turn_.store(block + 1, std::memory_order_release);
        turn_.notify_all();
        return place;
    }

    std::int64_t filled() const { return filled_; }

  private:
    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    std::atomic<std::int64_t> turn_{0};
    std::int64_t filled_ = 0;  // written only by the block whose turn it is
};

template <class I, class T>
struct Scratch {
    std::unique_ptr<char[]> memory;
    I *indices = nullptr;
    T *data = nullptr;

    void grow(std::int64_t entries) {
        if (memory) return;
        const std::size_t n = static_cast<std::size_t>(entries + slack);
        memory.reset(new char[n * (sizeof(I) + sizeof(T)) + 64]);
        data = reinterpret_cast<T *>((reinterpret_cast<std::uintptr_t>(memory.get()) + 63) / 64 * 64);
        indices = reinterpret_cast<I *>(data + n);
    }
};

// Keep the entries that are not 0.0 (NaN is kept). -> how many
template <class I, class T>
std::int64_t squeeze_zeros(I *indices, T *data, I *row_end, std::int64_t rows) {
    std::int64_t kept = 0, s = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
        for (const std::int64_t end = row_end[r]; s < end; ++s) {
            if (data[s] == T(0)) continue;
            indices[kept] = indices[s];
            data[kept++] = data[s];
        }
        row_end[r] = static_cast<I>(kept);
    }
    return kept;
}

// Rows [first, last); row_end[i - first] counts from the block's start. -> entries written
template <class Kernel, class I, class T>
std::int64_t block_of_rows(Kernel &kernel, std::int64_t first, std::int64_t last, I *indices, T *data, I *row_end) {
    if constexpr (requires { kernel.rows(first, last, indices, data, row_end); }) {
        return kernel.rows(first, last, indices, data, row_end);
    } else {
        std::int64_t count = 0;
        for (std::int64_t i = first; i < last; ++i) {
            count += kernel.row(i, indices + count, data + count);
            row_end[i - first] = static_cast<I>(count);
        }
        return count;
    }
}

template <class I, class T>
struct Product {
    OutputBuffer<I> indptr;  // until `finish`, entry i + 1 counts from the start of row i's block
    OutputBuffer<I> indices;
    OutputBuffer<T> data;
    std::vector<std::int64_t> place;  // of each block
    std::int64_t nnz = 0;
};

// make_kernel() -> object used by one worker, with row(i, indices, data) -> entries written, or with rows(...) for a
// whole block.
template <class I, class T, class MakeKernel>
void multiply_blocks(std::int64_t rows, const RowBlocks &blocks, int threads, bool drop_zeros, MakeKernel make_kernel,
                     Product<I, T> &product) {
    using Kernel = decltype(make_kernel());
    product.data.reserve(blocks.entries + slack);
    product.indices.reserve(blocks.entries + slack);
    product.indptr.reserve(rows + 1);
    product.place.resize(blocks.count() < 0 ? 0 : blocks.count());
    I *const indptr = product.indptr.data();
    indptr[0] = 0;

    if (threads <= 0) threads = get_num_threads();
    std::vector<std::unique_ptr<Kernel>> kernels(threads);
    std::vector<Scratch<I, T>> scratches(threads);
    Turnstile turnstile;
    std::atomic<bool> failed{false};

    const auto body = [&](std::int64_t block, int worker) {
        std::int64_t count = 0;
        I *indices = product.indices.data();
        T *data = product.data.data();
        const bool direct = turnstile.is_open(block);
        try {
            if (!kernels[worker]) kernels[worker].reset(new Kernel{make_kernel()});
            if (direct) {
                indices += turnstile.filled();
                data += turnstile.filled();
            } else {
                scratches[worker].grow(blocks.largest);
                indices = scratches[worker].indices;
                data = scratches[worker].data;
            }
            if (!failed.load(std::memory_order_relaxed)) {
                const std::int64_t first = blocks.first[block], last = blocks.first[block + 1];
                count = block_of_rows(*kernels[worker], first, last, indices, data, indptr + first + 1);
                if (drop_zeros) count = squeeze_zeros(indices, data, indptr + first + 1, last - first);
            }
        } catch (...) {
            failed = true;
            count = 0;
        }
        const std::int64_t place = turnstile.pass(block, count);
        product.place[block] = place;
        if (!direct && count > 0) {
            std::memcpy(product.indices.data() + place, indices, count * sizeof(I));
            std::memcpy(product.data.data() + place, data, count * sizeof(T));
        }
    };
    parallel_for(blocks.count(), threads, body);
    if (failed) throw std::bad_alloc();
    product.nnz = turnstile.filled();
}

// -> row pointers of the whole result, from those of the blocks. P is wider than I when nnz needs it.
template <class P, class I, class T>
void place_rows(const RowBlocks &blocks, const Product<I, T> &product, const I *local, P *indptr) {
    constexpr std::int64_t blocks_per_task = 64;
    indptr[0] = 0;
    const auto body = [&](std::int64_t task, int) {
        const std::int64_t end = std::min(blocks.count(), (task + 1) * blocks_per_task);
        for (std::int64_t block = task * blocks_per_task; block < end; ++block)
            for (std::int64_t i = blocks.first[block]; i < blocks.first[block + 1]; ++i)
                indptr[i + 1] = static_cast<P>(product.place[block] + local[i + 1]);
    };
    parallel_for((blocks.count() + blocks_per_task - 1) / blocks_per_task, 0, body);
}

}  // namespace workbench
