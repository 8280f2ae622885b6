// Each kernel source announces its bindings with one line, so that adding a kernel edits no list.
#pragma once
#include <nanobind/nanobind.h>
#include <vector>

namespace workbench {

using BindFunction = void (*)(nanobind::module_ &);

inline std::vector<BindFunction> &bindings() {
    static std::vector<BindFunction> list;
    return list;
}

struct Binding {
    explicit Binding(BindFunction bind) { bindings().push_back(bind); }
};

}  // namespace workbench

#define WORKBENCH_BIND(name)                                             \
    static void name(nanobind::module_ &m);                              \
    static const ::workbench::Binding name##_registered{&name};          \
    static void name([[maybe_unused]] nanobind::module_ &m)
