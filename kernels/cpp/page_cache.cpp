#include "page_cache.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

namespace workbench {
namespace {

constexpr std::size_t huge_from = std::size_t{1} << 24;  // huge pages below this would waste a fair part of the last one
constexpr std::size_t most_kept_bytes = std::size_t{1} << 29;
constexpr std::size_t most_kept = 8;

struct Store {
    std::mutex lock;
    std::vector<Pages> kept;  // by rising size
    std::size_t bytes = 0;

    Store() { kept.reserve(most_kept + 1); }  // pages are given back where nothing may throw
};

// Never destroyed: arrays may be freed while the interpreter shuts down.
Store &store() {
    static Store *instance = new Store;
    return *instance;
}

std::size_t whole_pages(std::size_t bytes) {
    static const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
}

Pages take_kept() {
    Store &s = store();
    std::scoped_lock guard(s.lock);
    if (s.kept.empty()) return {nullptr, 0};
    const Pages largest = s.kept.back();
    s.kept.pop_back();
    s.bytes -= largest.bytes;
    return largest;
}

}  // namespace

Pages take_pages(std::size_t bytes) {
    bytes = whole_pages(bytes);
    Pages pages = take_kept();
    if (pages.start != nullptr) {
        void *moved = mremap(pages.start, pages.bytes, bytes, MREMAP_MAYMOVE);
        if (moved != MAP_FAILED) {
            pages = {moved, bytes};
        } else {
            munmap(pages.start, pages.bytes);
            pages.start = nullptr;
        }
    }
    if (pages.start == nullptr) {
        void *fresh = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fresh == MAP_FAILED) throw std::bad_alloc();
        pages = {fresh, bytes};
    }
    if (bytes >= huge_from) madvise(pages.start, pages.bytes, MADV_HUGEPAGE);
    return pages;
}

Pages trim_pages(Pages pages, std::size_t bytes) {
    bytes = whole_pages(bytes);
    if (bytes >= pages.bytes) return pages;
    munmap(static_cast<char *>(pages.start) + bytes, pages.bytes - bytes);
    return {pages.start, bytes};
}

void give_pages(Pages pages) {
    Store &s = store();
    std::scoped_lock guard(s.lock);
    if (pages.bytes > most_kept_bytes) {
        munmap(pages.start, pages.bytes);
        return;
    }
    madvise(pages.start, pages.bytes, MADV_FREE);
    s.kept.insert(std::upper_bound(s.kept.begin(), s.kept.end(), pages,
                                   [](const Pages &x, const Pages &y) { return x.bytes < y.bytes; }),
                  pages);
    s.bytes += pages.bytes;
    while (s.bytes > most_kept_bytes || s.kept.size() > most_kept) {
        const Pages smallest = s.kept.front();
        s.kept.erase(s.kept.begin());
        s.bytes -= smallest.bytes;
        munmap(smallest.start, smallest.bytes);
    }
}

}  // namespace workbench
