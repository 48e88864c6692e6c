// What layers have in common whose windows may move by more than a pixel, and whose sums may be shuffled into pixels.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "checks.hpp"
#include "layers.hpp"

namespace spikingir {

inline int whole(int channels, int block) { return (channels + block - 1) / block; }

template <class Visit>
void for_each_weight(const Weights<int32_t>& weights, const Visit& visit) {
  for (int o = 0; o < weights.outputs; ++o)
    for (int i = 0; i < weights.inputs; ++i)
      for (int dy = 0; dy < weights.kernel; ++dy)
        for (int dx = 0; dx < weights.kernel; ++dx) visit(o, i, dy, dx, weights.at(o, i, dy, dx));
}

// Makes a number of each output channel the largest of which it and all weights are multiples.
inline void share_units(const Weights<int32_t>& weights, std::vector<int32_t>& units) {
  for_each_weight(weights, [&](int o, int, int, int, int32_t weight) { units[o] = std::gcd(units[o], weight); });
}

// Sum of the magnitudes of one output channel's weights.
inline int64_t reach(const Weights<int32_t>& weights, int output) {
  const std::ptrdiff_t row = std::ptrdiff_t(weights.inputs) * weights.kernel * weights.kernel;
  int64_t sum = 0;
  for (std::ptrdiff_t i = 0; i < row; ++i) sum += std::abs(int64_t{weights.data[output * row + i]});
  return sum;
}

// Refuses sums of an output channel that are not sure to fit.
inline void check_sum(int64_t sum, int output) {
  if (sum > INT32_MAX) refuse("the sums of output channel " + std::to_string(output) + " do not fit 32 bits");
}

inline void check_reading(const Reading& reading, int outputs) {
  const Weights<int32_t>& weights = reading.weights;
  check_equal("the number of output channels", weights.outputs, outputs);
  check_range("the number of input channels", weights.inputs, 1, most_channels);
  check_range("the side of the kernel", weights.kernel, 1, most_border);
  check_range("the stride", reading.stride, 1, most_stride);
  check_range("the padding", reading.padding, 0, most_border);
}

// A source has the rows and columns that windows read, of sums of a height and a width.
template <class Spikes>
void check_source(const Spikes& source, int channels, int kernel, int stride, int padding, int height, int width) {
  const auto& picture = source.picture;
  check_equal("the channels of a source", source.channels, channels);
  check_range("the border of a source", picture.border, padding, most_border);
  const auto last = [&](int size) { return int64_t{size - 1} * stride + kernel - padding; };
  check_range("the last row that a layer reads", last(height), -most_border, picture.height + picture.border);
  check_range("the last column that a layer reads", last(width), -most_border, picture.width + picture.border);
}

template <class Spikes>
void check_skip(const Spikes* skip, const Phases& phases, int height, int width) {
  if (!skip) refuse("a skip is None");
  check_equal("the channels of a skip", skip->channels, phases.channels);
  check_equal("the height of a skip", skip->picture.height, int64_t{height} * phases.factor);
  check_equal("the width of a skip", skip->picture.width, int64_t{width} * phases.factor);
}

inline void check_current(const Current& current, const Phases& phases, int height, int width) {
  check_equal("the height of the current", current.height, height);
  check_equal("the width of the current", current.width, width);
  check_range("the channels of the current", current.depth, phases.padded(), 2 * most_channels);
}

// Sums of a height and a width, and the layer's pixels, can be had.
inline void check_size(const Phases& phases, int height, int width, int depth, int border) {
  check_picture(height, width, phases.padded(), border);
  check_picture(int64_t{height} * phases.factor, int64_t{width} * phases.factor, depth, border);
}

}  // namespace spikingir
