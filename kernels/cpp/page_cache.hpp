// Whole pages from the operating system, and a small store of freed ones.
#pragma once
#include <cstddef>

namespace workbench {

struct Pages {
    void *start;
    std::size_t bytes;
};

// At least `bytes`, contents unspecified, resident only where they were written. Throws std::bad_alloc.
Pages take_pages(std::size_t bytes);

// Give back all but the first `bytes`.
Pages trim_pages(Pages pages, std::size_t bytes);

void give_pages(Pages pages);

}  // namespace workbench
