// Layers of a network with their weights in the order that the kernels read them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"

namespace spikingir {

// Weights as PyTorch orders them: [output channel][input channel][kernel][kernel].
template <class Number>
struct Weights {
  const Number* data;
  int outputs, inputs, kernel;

  Number at(int o, int i, int dy, int dx) const {
    return data[((std::ptrdiff_t(o) * inputs + i) * kernel + dy) * kernel + dx];
  }
};

// What the neurons of a layer have in common.
struct Clock {
  int time_steps, delay;
  bool has_extended_step, has_sign;
};

// Spikes of a phased layer as counts, and of a clocked one as words [step][sign][32 channels].
struct Counts {
  int channels, most;
  Picture<int16_t> picture;
};
struct Trains {
  int channels, steps;
  bool has_sign;
  Picture<uint32_t> picture;
};
using Current = Picture<int32_t>;

// Counts from 0 to `most` as bytes, and numbers of the image in units of 2^-bits, of which `most` is the largest
// magnitude; those that 16 bits do not hold are lost.
struct Levels {
  Levels(int channels, int most, int height, int width, int border);
  int channels, most;
  Picture<uint8_t> picture;
};
struct Pixels {
  Pixels(const double* planes, int channels, int height, int width, int bits, int border);
  int channels, most;
  Picture<int16_t> picture;
};

// Spikes, and the residual membranes where they were asked for.
template <class Spikes>
using Fired = std::pair<std::unique_ptr<Spikes>, std::unique_ptr<Current>>;

// The current of the image, in whole numbers; `after` is added to what is rounded.
class Analog {
 public:
  Analog(Weights<double> weights, const double* bias, const int32_t* after, const std::string& path);
  std::unique_ptr<Current> run(const double* planes, int read, int height, int width, int threads) const;

 private:
  const Kernels& kernels;
  int kernel, channels, blocks;
  Buffer<double> weights, bias;
  Buffer<int32_t> after;
};

// What one layer reads: spikes of others, in the order of its weights, and the image's current instead of its bias.
template <class Spikes>
struct Input {
  std::vector<const Spikes*> sources;
  const Current* current;
  int height, width, border, threads;
  bool wants_residual;
};

class Phased {
 public:
  Phased(Weights<int32_t> weights, const std::vector<int>& channels, const int32_t* bias, const int32_t* exponent,
         Clock clock, const std::string& path);
  Fired<Counts> fire(const Input<Counts>& input) const;

 private:
  const Kernels& kernels;
  Clock clock;
  int outputs, kernel;
  std::vector<int> channels;
  std::ptrdiff_t block;
  Buffer<int16_t> narrow;
  Buffer<int32_t> wide, bias, exponent;
};

// A convolution of an integer layer: whole weights, and how its window moves.
struct Reading {
  Weights<int32_t> weights;
  int stride, padding;
};

// One of counts from 0 to `most`, and one of the image in units of 2^-bits; its bias is on the layer's grid.
struct LevelReading : Reading {
  int most;
};
struct ImageReading : Reading {
  int bits;
  const int32_t* bias;
};

// What an integer layer gives: sums of channels * factor^2 channels, shuffled into factor x factor pixels each.
struct Integers {
  int channels, factor, steps;
  bool has_sign, last;  // the last one gives counts of 16 bits, with residual membranes
};

struct IntegerInput {
  std::vector<const Levels*> sources, skips;
  const Pixels* image;
  const Current* current;
  int height, width, border, threads;  // of the sums
  bool wants_residual;
};

struct IntegerFired {
  std::unique_ptr<Levels> levels;
  std::unique_ptr<Counts> counts;
  std::unique_ptr<Current> residual;
};

// A phased layer in small numbers. All numbers of its output channels are in the order of PyTorch's pixel shuffle.
class Integer {
 public:
  Integer(Integers kind, const std::vector<LevelReading>& sources, const std::vector<const int32_t*>& skips,
          const ImageReading* image, const int32_t* bias, const int32_t* exponent, const std::string& path);
  IntegerFired fire(const IntegerInput& input) const;
  // Largest magnitude of the image for which its sums are exact.
  int image_limit() const { return limit; }
  // Channels of a current that it takes instead of the image: sums in the order of its blocks.
  std::vector<int> current_order() const;

 private:
  struct Window {
    int channels, kernel, stride, padding, most, words, group, bits;
  };
  int slot(int output) const;
  void take_out_units(const std::vector<LevelReading>& sources);
  void pack(const std::vector<LevelReading>& sources);
  void pack_image(const ImageReading& image);
  int group_of(int source, int first) const;
  void check(const IntegerInput& input) const;

  const Kernels& kernels;
  Integers kind;
  int outputs, blocks_per_phase, blocks, digits, limit;
  bool scattered, has_image, has_high;
  std::ptrdiff_t block, image_block;
  std::vector<Window> windows;
  Window image;
  Buffer<int8_t> weights;
  Buffer<int16_t> image_high, image_low;
  Buffer<int32_t> image_bias, unit, no_unit, bias, exponent;
  std::vector<Buffer<int32_t>> scales;
};

// Numbers of a clocked layer's neurons, one per output channel.
struct Thresholds {
  const int32_t *start, *threshold, *level, *amplitude;
};

class Clocked {
 public:
  Clocked(Weights<int32_t> weights, Weights<int32_t> extended, const std::vector<int>& channels, const int32_t* bias,
          const Thresholds& thresholds, Clock clock, const std::string& path);
  Fired<Trains> fire(const Input<Trains>& input) const;

 private:
  const Kernels& kernels;
  Clock clock;
  int outputs, kernel;
  std::vector<int> channels;
  int rows, chunk;
  bool few;
  Buffer<int16_t> narrow, narrow_extended;
  Buffer<int32_t> wide, wide_extended, each, each_extended, bias, start, threshold, level, amplitude;
};

}  // namespace spikingir
