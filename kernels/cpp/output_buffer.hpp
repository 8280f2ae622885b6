// Memory for a result whose size is known only at the end: reserved at an upper bound, touched as far as it is filled,
// trimmed in place, then handed to NumPy. Pages that nobody wrote never become resident.
//
// The kernel clears every fresh page, which can cost more than the product itself. So the pages of freed results are
// kept for the next one, up to a limit and marked as free to take (MADV_FREE) should memory get short.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#include "page_cache.hpp"

namespace workbench {

template <class T>
class OutputBuffer {
  public:
    OutputBuffer() = default;
    OutputBuffer(const OutputBuffer &) = delete;
    OutputBuffer &operator=(const OutputBuffer &) = delete;
    ~OutputBuffer() { release(data_, mapped_bytes_); }

    void reserve(std::int64_t entries) {
        if (static_cast<std::size_t>(entries) > (SIZE_MAX - 64) / sizeof(T)) throw std::bad_alloc();
        const std::size_t bytes = static_cast<std::size_t>(entries) * sizeof(T) + 64;
        if (bytes < heap_limit) {
            data_ = static_cast<T *>(std::malloc(bytes));
            if (data_ == nullptr) throw std::bad_alloc();
            return;
        }
        const Pages pages = take_pages(bytes);
        data_ = static_cast<T *>(pages.start);
        mapped_bytes_ = pages.bytes;
    }

    T *data() { return data_; }

    // Gives back what lies behind the first `entries` and passes the rest on; needs the GIL.
    nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<1>> finish(std::int64_t entries) {
        if (static_cast<std::size_t>(entries) > (SIZE_MAX - 64) / sizeof(T)) throw std::bad_alloc();
        const std::size_t bytes = static_cast<std::size_t>(entries) * sizeof(T) + 64;
        if (mapped_bytes_ != 0)
            mapped_bytes_ = trim_pages({data_, mapped_bytes_}, bytes).bytes;
        else if (void *smaller = std::realloc(data_, bytes))
            data_ = static_cast<T *>(smaller);
        auto *owner = new Owner{std::exchange(data_, nullptr), std::exchange(mapped_bytes_, 0)};
        nanobind::capsule capsule(owner, [](void *p) noexcept {
            auto *o = static_cast<Owner *>(p);
            release(o->data, o->mapped_bytes);
            delete o;
        });
        return {owner->data, {static_cast<std::size_t>(entries)}, capsule};
    }

  private:
    struct Owner {
        T *data;
        std::size_t mapped_bytes;
    };

    static void release(T *data, std::size_t mapped_bytes) {
        if (mapped_bytes != 0)
            give_pages({data, mapped_bytes});
        else
            std::free(data);
    }

#if defined(__SANITIZE_ADDRESS__)
    static constexpr std::size_t heap_limit = SIZE_MAX;  // so that a write past the end is seen
#else
    static constexpr std::size_t heap_limit = std::size_t{1} << 20;
#endif

    T *data_ = nullptr;
    std::size_t mapped_bytes_ = 0;  // 0: from the heap
};

}  // namespace workbench
