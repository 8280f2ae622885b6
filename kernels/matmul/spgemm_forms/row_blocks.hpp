// Runs a row-wise product block by block, writing the result once and in place.
//
// How long the result is becomes known only while it is computed. A counting pass beforehand would cost almost as much
// as the product. Instead each worker computes a block of rows into a scratch area that stays in its cache and says how
// long it is; once all earlier blocks have done so its place is known, and the worker copies it there. Until then it goes
// on with other blocks, so that a heavy row holds nobody up. What is written does not depend on who computed it.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "csr.hpp"
#include "output_buffer.hpp"
#include "python_call.hpp"
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

// Where blocks go: each behind the one before, as soon as the lengths of all earlier ones are known.
class Places {
  public:
    explicit Places(std::int64_t blocks) : place(blocks), entries_(blocks, -1) {}

    // True: all earlier blocks have their places, and this one starts at filled(); it may be written there directly.
    bool is_next(std::int64_t block) const { return placed_.load(std::memory_order_acquire) == block; }
    bool is_placed(std::int64_t block) const { return placed_.load(std::memory_order_acquire) > block; }
    std::int64_t filled() const { return filled_; }

    void tell(std::int64_t block, std::int64_t entries) {
        const std::lock_guard lock(mutex_);
        entries_[block] = entries;
        std::int64_t next = placed_.load(std::memory_order_relaxed);
        for (; next < static_cast<std::int64_t>(entries_.size()) && entries_[next] >= 0; ++next) {
            place[next] = filled_;
            filled_ += entries_[next];
        }
        placed_.store(next, std::memory_order_release);
        grown_.notify_all();
    }

    void wait_for(std::int64_t block) {
        std::unique_lock lock(mutex_);
        while (!grown_.wait_for(lock, std::chrono::milliseconds(20), [&] { return is_placed(block); })) {
            lock.unlock();
            check_stop();
            lock.lock();
        }
    }

    std::vector<std::int64_t> place;  // of every block that is placed

  private:
    std::vector<std::int64_t> entries_;  // of each block, -1 until told
    std::mutex mutex_;
    std::condition_variable grown_;
    std::atomic<std::int64_t> placed_{0};  // blocks [0, placed_) have their places
    std::int64_t filled_ = 0;              // their entries
};

// One worker's scratch area and the finished blocks in it that still wait for their places.
template <class I, class T>
class Waiting {
  public:
    // -> room for `entries` behind the blocks that wait; if there is none, wait until all have gone.
    std::pair<I *, T *> room(std::int64_t entries, Places &places, I *indices, T *data) {
        if (!memory_) allocate(std::max(2 * entries, least_capacity));
        if (used_ + entries + slack > capacity_) {
            places.wait_for(blocks_.back().block);
            send(places, indices, data);
        }
        return {indices_ + used_, data_ + used_};
    }

    void add(std::int64_t block, std::int64_t entries) {
        blocks_.push_back({block, used_, entries});
        used_ += entries;
    }

    // Copy the blocks whose places are known.
    void send(const Places &places, I *indices, T *data) {
        std::size_t sent = 0;
        for (; sent < blocks_.size() && places.is_placed(blocks_[sent].block); ++sent) {
            const auto &[block, start, entries] = blocks_[sent];
            std::copy_n(indices_ + start, entries, indices + places.place[block]);
            std::copy_n(data_ + start, entries, data + places.place[block]);
        }
        blocks_.erase(blocks_.begin(), blocks_.begin() + static_cast<std::ptrdiff_t>(sent));
        if (blocks_.empty()) used_ = 0;
    }

  private:
    static constexpr std::int64_t least_capacity = 1 << 15;

    struct Block {
        std::int64_t block, start, entries;
    };

    void allocate(std::int64_t entries) {
        capacity_ = entries + slack;
        const auto n = static_cast<std::size_t>(capacity_);
        memory_.reset(new char[n * (sizeof(I) + sizeof(T)) + 64]);
        data_ = reinterpret_cast<T *>((reinterpret_cast<std::uintptr_t>(memory_.get()) + 63) / 64 * 64);
        indices_ = reinterpret_cast<I *>(data_ + n);
    }

    std::vector<Block> blocks_;
    std::int64_t used_ = 0, capacity_ = 0;
    std::unique_ptr<char[]> memory_;
    I *indices_ = nullptr;
    T *data_ = nullptr;
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
    I *const indptr = product.indptr.data();
    indptr[0] = 0;

    if (threads <= 0) threads = get_num_threads();
    std::vector<std::unique_ptr<Kernel>> kernels(threads);
    std::vector<Waiting<I, T>> waiting(threads);
    Places places(std::max<std::int64_t>(blocks.count(), 0));

    const auto body = [&](std::int64_t block, int worker) {
        std::int64_t count = 0;
        waiting[worker].send(places, product.indices.data(), product.data.data());
        const bool direct = places.is_next(block);
        try {
            if (!kernels[worker]) kernels[worker].reset(new Kernel{make_kernel()});
            const auto [indices, data] =
                direct ? std::pair{product.indices.data() + places.filled(), product.data.data() + places.filled()}
                       : waiting[worker].room(blocks.largest, places, product.indices.data(), product.data.data());
            const std::int64_t first = blocks.first[block], last = blocks.first[block + 1];
            count = block_of_rows(*kernels[worker], first, last, indices, data, indptr + first + 1);
            if (drop_zeros) count = squeeze_zeros(indices, data, indptr + first + 1, last - first);
            if (!direct && count > 0) waiting[worker].add(block, count);
        } catch (...) {
            places.tell(block, 0);  // others may wait for it
            throw;
        }
        places.tell(block, count);
    };
    parallel_for(blocks.count(), threads, body);
    for (auto &left : waiting) left.send(places, product.indices.data(), product.data.data());
    product.place = std::move(places.place);
    product.nnz = places.filled();
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
