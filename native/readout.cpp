// What the last layer's spikes and membranes say, in double precision.
#include <algorithm>
#include <cstdlib>

#include "checks.hpp"
#include "layers.hpp"
#include "threads.hpp"

namespace spikingir {

Counts::Counts(const Trains& trains, int first, int last)
    : channels(trains.channels),
      most(last - first),
      picture(trains.picture.height, trains.picture.width, trains.channels, 0) {
  const int words = trains.picture.depth / trains.steps, blocks = words / (1 + trains.has_sign);
  for (int y = 0; y < picture.height; ++y)
    for (int x = 0; x < picture.width; ++x) {
      int16_t* count = picture.at(y, x);
      std::fill_n(count, channels, int16_t{0});
      for (int step = first; step < last; ++step)
        for (int c = 0; c < channels; ++c) {
          const uint32_t* word = trains.picture.at(y, x) + step * words + c / clocked_block;
          const int up = *word >> c % clocked_block & 1, down = word[blocks * trains.has_sign] >> c % clocked_block & 1;
          count[c] = static_cast<int16_t>(count[c] + up - (trains.has_sign ? down : 0));
        }
    }
}

namespace {

// Adds a channel of a convolution of counts, with zeros around them, to one row of its sums. Sums are exact, so that
// their order is of no matter.
void add_channel(const Weights<double>& weights, const Counts& counts, int o, int y, int height, int width,
                 double* sums) {
  const int before = weights.kernel / 2;
  for (int i = 0; i < weights.inputs; ++i)
    for (int dy = 0; dy < weights.kernel; ++dy)
      for (int dx = 0; dx < weights.kernel; ++dx) {
        const double weight = weights.at(o, i, dy, dx);
        const int row = y + dy - before, shift = dx - before;
        if (weight == 0 || row < 0 || row >= height) continue;
        const int16_t* from = counts.picture.at(row, 0) + i;
        const std::ptrdiff_t depth = counts.picture.depth;
        const int end = std::min(width, width - shift);
        for (int x = std::max(0, -shift); x < end; ++x) sums[x] += weight * from[(x + shift) * depth];
      }
}

void check(const Readout& readout) {
  const Weights<double>& weights = readout.weights;
  check_range("the number of output channels", weights.outputs, 1, most_channels);
  check_range("the number of threads", readout.threads, 1, most_threads);
  check_range("the number of steps", readout.most, 1, most_steps);
  if (!readout.counts) refuse("the counts are None");
  const auto check_counts = [&](const Counts& counts, const Weights<double>& given) {
    check_range("the side of the kernel", given.kernel, 1, most_border);
    check_equal("the number of output channels", given.outputs, weights.outputs);
    check_equal("the number of input channels", given.inputs, counts.channels);
    check_range("the height", readout.height, 1, counts.picture.height);
    check_range("the width", readout.width, 1, counts.picture.width);
  };
  check_counts(*readout.counts, weights);
  if (readout.extended) check_counts(*readout.extended, readout.extended_weights);
  if (!readout.residual) return;
  check_range("the channels of the membranes", readout.residual->depth, weights.outputs, 2 * most_channels);
  check_range("the height", readout.height, 1, readout.residual->height);
  check_range("the width", readout.width, 1, readout.residual->width);
}

}  // namespace

void read_out(const Readout& readout, double* to) {
  check(readout);
  const int height = readout.height, width = readout.width, channels = readout.weights.outputs;
  share_rows(int64_t{height} * channels, readout.threads, [&](const auto& next) {
    for (int64_t i; (i = next()) < int64_t{height} * channels;) {
      const int c = static_cast<int>(i / height), y = static_cast<int>(i % height);
      double* row = to + i * width;
      std::fill_n(row, width, 0.0);
      add_channel(readout.weights, *readout.counts, c, y, height, width, row);
      if (readout.extended) add_channel(readout.extended_weights, *readout.extended, c, y, height, width, row);
      const double most = readout.most, bias = readout.bias ? readout.bias[c] : 0.0;
      for (int x = 0; x < width; ++x) row[x] = row[x] / most + bias;
      if (readout.residual) {
        const int32_t* membrane = readout.residual->at(y, 0) + c;
        const std::ptrdiff_t depth = readout.residual->depth;
        const double grid = readout.grid[c], theta = readout.theta[c], start = readout.start;
        for (int x = 0; x < width; ++x) row[x] += (membrane[x * depth] / grid - start) * theta / most;
      }
      if (!readout.has_sign)
        for (int x = 0; x < width; ++x) row[x] = std::max(row[x], 0.0);
    }
  });
}

}  // namespace spikingir
