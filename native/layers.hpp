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

// Spikes of a clocked layer as words [step][sign][32 channels], and of a phased one as counts.
struct Trains {
  int channels, steps;
  bool has_sign;
  Picture<uint32_t> picture;
};
struct Counts {
  Counts(int channels, int most, Picture<int16_t> picture)
      : channels(channels), most(most), picture(std::move(picture)) {}
  Counts(const Trains& trains, int first, int last);  // of the steps from the one to the other
  int channels, most;
  Picture<int16_t> picture;
};
using Current = Picture<int32_t>;

// Counts from 0 to `most` as bytes, and numbers of the image in units of 2^-bits, of which `most` is the largest
// magnitude; those that 16 bits do not hold are lost. There may be fewer bits than were asked for: all that they need.
struct Levels {
  Levels(int channels, int most, int height, int width, int border);
  int channels, most;
  Picture<uint8_t> picture;
};
struct Pixels {
  static constexpr int most_bits = 20;
  Pixels(const double* planes, int channels, int height, int width, int bits, int border);
  int channels, most, bits;
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

// What a phased layer reads: spikes of others, in the order of its weights, and the image's current instead of its
// bias.
struct PhasedInput {
  std::vector<const Counts*> sources;
  const Current* current;
  int height, width, border, threads;
  bool wants_residual;
};

class Phased {
 public:
  Phased(Weights<int32_t> weights, const std::vector<int>& channels, const int32_t* bias, const int32_t* exponent,
         Clock clock, const std::string& path);
  Fired<Counts> fire(const PhasedInput& input) const;

 private:
  const Kernels& kernels;
  Clock clock;
  int outputs, kernel;
  std::vector<int> channels;
  std::ptrdiff_t block;
  Buffer<int16_t> narrow;
  Buffer<int32_t> wide, bias, exponent;
};

// Sums of channels * factor^2 channels that are shuffled into factor x factor pixels of a layer each. They are numbered
// as by PyTorch's pixel shuffle, and stand in blocks of one phase each; or, scattered, one phase after the other.
struct Phases {
  int channels, factor, block;
  bool scattered;

  int outputs() const { return channels * factor * factor; }
  int blocks_per_phase() const { return (channels + block - 1) / block; }
  int blocks() const { return scattered ? (outputs() + block - 1) / block : blocks_per_phase() * factor * factor; }
  int padded() const { return blocks() * block; }
  int slot(int output) const {
    const int phases = factor * factor;
    return output % phases * (scattered ? channels : blocks_per_phase() * block) + output / phases;
  }
  // The output in each slot; -1 where there is none.
  std::vector<int> order() const {
    std::vector<int> all(padded(), -1);
    for (int o = 0; o < outputs(); ++o) all[slot(o)] = o;
    return all;
  }
};

// A convolution of a layer of any size: whole weights, and how its window moves.
struct Reading {
  Weights<int32_t> weights;
  int stride, padding;
};

// One of counts from 0 to `most`, and one of the image; its bias is on the layer's grid.
struct LevelReading : Reading {
  int most;
};
struct ImageReading : Reading {
  const int32_t* bias;
};

// What an integer layer gives; see Phases.
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
  // Whether its sums of an image are exact.
  bool takes(const Pixels& pixels) const { return fits_whole(pixels) || fits_digits(pixels); }
  // Channels of a current that it takes instead of the image: sums in the order of its blocks.
  std::vector<int> current_order() const { return phases.order(); }

 private:
  struct Window {
    int channels, kernel, stride, padding, most, words, group;
  };
  bool fits_whole(const Pixels& pixels) const;
  bool fits_digits(const Pixels& pixels) const;
  void take_out_units(const std::vector<LevelReading>& sources);
  void pack(const std::vector<LevelReading>& sources);
  void pack_image(const ImageReading& image);
  int group_of(int source, int first) const;
  void check(const IntegerInput& input) const;

  const Kernels& kernels;
  Integers kind;
  Phases phases;
  int outputs, blocks, digits;
  bool has_image;
  int64_t image_reach, image_digits_reach;  // what sums of the image are at most, as multiples of its largest number
  std::ptrdiff_t block, image_block;
  std::vector<Window> windows;
  Window image;
  Buffer<int8_t> weights;
  Buffer<int16_t> image_whole, image_high, image_low;
  Buffer<int32_t> image_bias, unit, bias, exponent;
  bool has_unit;
  std::vector<Buffer<int32_t>> scales;
};

// A convolution of a clocked layer, with weights of the same size for the extended step.
struct TrainReading : Reading {
  Weights<int32_t> extended;
};

// Scales by channel of a layer that is added as it is, and those at the extended step.
struct TrainScales {
  const int32_t *regular, *extended;
};

// Numbers of a clocked layer's neurons, one per channel.
struct Thresholds {
  const int32_t *start, *threshold, *level, *amplitude;
};

struct ClockedInput {
  std::vector<const Trains*> sources, skips;
  const Current* current;              // instead of the bias
  int height, width, border, threads;  // of the sums
  bool wants_residual;
};

// A layer whose neurons fire step by step. Biases are of sums, in the order of PyTorch's pixel shuffle.
class Clocked {
 public:
  Clocked(int channels, int factor, const std::vector<TrainReading>& sources, const std::vector<TrainScales>& skips,
          const int32_t* bias, const Thresholds& thresholds, Clock clock, const std::string& path);
  Fired<Trains> fire(const ClockedInput& input) const;
  // Channels of a current: sums in the order of its blocks.
  std::vector<int> current_order() const { return phases.order(); }
  // Whether its spikes are read by columns, four channels at a time.
  bool is_by_columns() const { return by_columns; }

 private:
  struct Window {
    int channels, kernel, stride, padding, first;
  };
  void take_out_units(const std::vector<TrainReading>& sources);
  bool has_short_places() const;
  bool take_short_units(const std::vector<TrainReading>& sources);
  int most_pairs(const std::vector<TrainReading>& sources) const;
  void check_sums(const std::vector<TrainReading>& sources, const std::vector<TrainScales>& skips, const int32_t* bias,
                  const Thresholds& thresholds) const;
  void check(const ClockedInput& input) const;
  int64_t list_room() const;
  int64_t starts_room() const;
  template <class Number>
  void pack(const std::vector<TrainReading>& sources, bool interleaved, Buffer<Number>& regular, Buffer<Number>& last);
  void pack_columns(const std::vector<TrainReading>& sources);
  void pack_few(const std::vector<TrainReading>& sources);

  const Kernels& kernels;
  Clock clock;
  Phases phases;
  int steps, rows, pairs;
  bool by_columns, few;
  std::vector<Window> windows;
  Buffer<int16_t> narrow, narrow_extended;
  Buffer<int32_t> wide, wide_extended, each, each_extended, unit, bias, start, threshold, level, amplitude;
  std::vector<Buffer<int32_t>> scales, scales_extended;
};

// What the body says, from its last layer: the mapper's sums of the counts, (sum + sum at the extended step) / most +
// bias, and the recycled membranes, (v / grid - start) theta / most; see FoldedNetwork.read. Nothing of what is null.
struct Readout {
  const Counts *counts, *extended;
  Weights<double> weights, extended_weights;  // of odd sides, on a grid
  const double* bias;
  const Current* residual;
  const double *grid, *theta;  // of each channel
  double start;
  int most, height, width, threads;
  bool has_sign;
};

// [channel][height][width]
void read_out(const Readout& readout, double* to);

}  // namespace spikingir
