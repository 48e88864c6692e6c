// What a caller is told when something does not fit: one sentence, as Python's ValueError.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace spikingir {

inline constexpr int most_pixels = 1 << 24;    // on a side of a picture
inline constexpr int most_channels = 1 << 16;  // of a layer
inline constexpr int most_border = 64;         // pixels around a picture
inline constexpr int most_threads = 1024;
inline constexpr int most_steps = INT16_MAX;                // a count of spikes takes 16 bits
inline constexpr int most_exponent = 30;                    // 2^k takes 32 bits with its sign
inline constexpr int64_t most_elements = int64_t{1} << 40;  // of a picture

[[noreturn]] inline void refuse(const std::string& text) { throw std::invalid_argument(text); }

// `what` in the range from least to most.
inline void check_range(const std::string& what, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most)
    refuse(what + " is " + std::to_string(value) + "; expected " + std::to_string(least) + " to " +
           std::to_string(most));
}

inline void check_equal(const std::string& what, int64_t value, int64_t expected) {
  if (value != expected) refuse(what + " is " + std::to_string(value) + "; expected " + std::to_string(expected));
}

// A picture of that size can be had.
inline void check_picture(int64_t height, int64_t width, int64_t depth, int64_t border) {
  check_range("the height", height, 1, most_pixels);
  check_range("the width", width, 1, most_pixels);
  check_range("the border", border, 0, most_border);
  if ((height + 2 * border) * (width + 2 * border) > most_elements / (depth + 1))
    refuse("a picture of " + std::to_string(height) + " x " + std::to_string(width) + " pixels with " +
           std::to_string(depth) + " numbers each does not fit the memory");
}

inline void check_window(const char* what, int first, int last, int size) {
  check_range(std::string("the first of the ") + what, first, 0, size);
  check_range(std::string("the end of the ") + what, last, 0, size);
}

}  // namespace spikingir
