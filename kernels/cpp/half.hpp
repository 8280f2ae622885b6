// IEEE half precision, read without loss.
#pragma once
#include <cstdint>
#include <cstring>

namespace workbench {

inline float float_from_bits(std::uint32_t bits) {
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}

inline float float_from_half(std::uint16_t bits) {
    const std::uint32_t exponent = (bits >> 10) & 31u, fraction = bits & 1023u;
    const std::uint32_t shifted = exponent == 31 ? 255u : exponent + 112u;
    const float size = exponent == 0 ? static_cast<float>(fraction) * 0x1p-24f : float_from_bits(shifted << 23 | fraction << 13);
    return bits & 0x8000u ? -size : size;
}

}  // namespace workbench
