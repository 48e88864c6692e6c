// What a kernel is told: plain pointers and sizes, so that the paths share no code that runs: what is defined here
// is inlined, or belongs to the caller.
//
// Images are rows of pixels of channels. All numbers of a layer are whole: multiples of 2^-k, k the exponent of their
// output channel. Output channels come in blocks, the last one filled up with channels that never fire.
#pragma once

#include <cstddef>
#include <cstdint>

namespace spikingir {

inline constexpr int phased_block = 16;   // output channels of a phased or an analog layer's block
inline constexpr int integer_block = 16;  // those of a layer of counts of one byte
inline constexpr int most_tile = 12;      // pixels of a row that such a layer does at a time, at most
inline constexpr int image_digit = 8;     // bits of the low part of a weight on the image, where it has two
inline constexpr int most_stride = 8;     // of such a layer, in pixels
inline constexpr int clocked_block = 32;  // those of a clocked layer's, one word of spikes
inline constexpr int slack = 8;           // columns that may be read beyond an image's border
inline constexpr int tile = 8;            // pixels of a row that a clocked layer does at a time
inline constexpr int few_outputs = 4;     // at most so many output channels have a clocked layer run over steps at once
inline constexpr int list_slack = 32;     // numbers that may be written behind the end of a list
inline constexpr int list_group = 8;      // by columns, lists are filled up to a multiple of so many
inline constexpr int place_bytes = 8;     // by columns, what a place counts
inline constexpr int digit_channels = 4;  // by columns, channels whose spikes are one digit of a word, and whose
inline constexpr int sums_of_digit = 1 << digit_channels;  // rows stand summed, for each digit one
inline constexpr int digits_of_word = clocked_block / digit_channels;
inline constexpr int most_lanes =
    16;  // 32-bit numbers in the widest vector; up to so many may be read behind a picture

// A picture in memory: of one pixel everywhere where both strides are zero. Strides count elements.
template <class Element>
struct View {
  Element* first = nullptr;
  std::ptrdiff_t row = 0, pixel = 0;

  [[gnu::always_inline]] Element* at(int y, int x) const { return first + y * row + x * pixel; }
};

// One of the layers that a layer reads, from the upper left corner of the window around its first pixel.
template <class Element>
struct Source {
  View<const Element> view;
  int channels;
};

// Weighted sums of the image itself. Weights: [block][kernel][kernel][channel][16], in units of 2^-k.
struct AnalogLayer {
  int width, kernel, channels, blocks;
  View<const double> image;  // from the upper left corner of the first pixel's window
  const double *weights, *bias;
  const int32_t* after;  // added to what is rounded
  View<int32_t> current;
};

// Neurons that collect their window before they fire. A spike of a source stands as its count.
// Weights: [block][source][kernel][kernel][pair of channels][16][2], or without pairs in 32 bits.
struct PhasedLayer {
  int width, kernel, blocks, sources, time_steps;
  bool has_sign;
  const Source<int16_t>* source;
  const int16_t* narrow;
  const int32_t* wide;
  std::ptrdiff_t block;
  const int32_t* exponent;
  View<const int32_t> current;
  View<int16_t> counts;
  View<int32_t> residual;  // null where nobody asks for it
};

// One of the layers that a layer reads whose counts are bytes, from the upper left corner of the window around its
// first pixel. A window's row has `words` words of four bytes; after `group` of all its words 16-bit sums are widened.
struct IntegerSource {
  View<const uint8_t> view;
  int kernel, stride, words, group;
};

// One that is added as it is, each channel by its scale.
struct Skip {
  View<const uint8_t> view;
  const int32_t* scale;
};

// The image in 16 bits, in units of 2^-bits. Its sums, in units of 2^-(k + bits), are rounded to the grid.
// Weights: [block][row][pair of a window's row][16][2], as they are or, where their sums might not fit 32 bits, as
// high 2^image_digit + low. Low is null where there is no image.
struct ImageSource {
  View<const int16_t> view;
  int kernel, stride, words, bits;
  const int16_t *high, *low;
  std::ptrdiff_t block;
  const int32_t* bias;
};

// Neurons that collect their window before they fire, of which a count takes one byte.
// Weights: [block][digit][source][row][column][four channels][16][4]. An output channel belongs to one of factor^2
// phases: pixels of the layer into which one pixel of the sums is shuffled. Blocks are of one phase each, unless
// `scattered`.
struct IntegerLayer {
  int width;  // of the sums, in pixels
  int outputs, channels, factor, blocks_per_phase, digits, steps;
  bool has_sign, scattered;
  int sources;
  const IntegerSource* source;
  const int8_t* weights;
  std::ptrdiff_t block;
  int skips;
  const Skip* skip;
  ImageSource image;
  // what sums are multiplied by, null for 1; the bias of all steps and half a threshold; the threshold, as 2^exponent
  const int32_t *unit, *bias, *exponent;
  View<const int32_t> current;  // instead of the image, if any
  View<uint8_t> levels;         // counts, or where they have a sign, the next
  View<int16_t> counts;
  View<int32_t> residual;  // null where nobody asks for it
};

// One of the layers that a clocked layer reads: words of spikes of 32 channels, step after step, from the upper left
// corner of the window around its first pixel. Its rows of weights are numbered from `first` on.
struct TrainSource {
  View<const uint32_t> view;
  int channels, kernel, stride, first;
};

// One whose spikes are added as they are, each channel by its scale.
struct TrainSkip {
  View<const uint32_t> view;
  const int32_t *scale, *extended;
};

// Neurons that fire step by step. An output channel belongs to one of factor^2 phases, as in IntegerLayer; blocks are
// of one phase each, unless `scattered`: then all channels of all phases are in one block, phase after phase. Rows of
// 32 weights: [block][source][column][row][channel], after them one of zeros; or, where a layer is done `by_columns`,
// [block][source][row][channel][column], each source behind a row of zeros of every column. In 16 bits a row has four
// output channels of its first half, four of its second, and so on, as low_pairs and high_pairs read them.
struct ClockedLayer {
  int width;  // of the sums, in pixels
  int outputs, channels, factor, blocks, blocks_per_phase, time_steps, delay;
  bool has_extended_step, has_sign, scattered;
  int sources;
  const TrainSource* source;
  bool by_columns;  // all sources move by one pixel, and 16 bits hold the sum of whichever rows
  int rows;         // of a block; without that of zeros behind them
  int pairs;  // of rows that are added in 16 bits, in two sums, before those are widened; 0 where one row is too large
  const int16_t *narrow, *narrow_extended;
  const int32_t *wide, *wide_extended;
  const int32_t* unit;  // what sums of rows are multiplied by
  // Instead of rows, where outputs are few, and the channels of each source:
  const int32_t *few, *few_extended;  // [source][row][column][channel][output]
  int skips;
  const TrainSkip* skip;
  const int32_t *start, *threshold, *level, *amplitude;
  View<const int32_t> current;
  View<uint32_t> spikes;  // [step][sign][block of a phase] at a pixel
  View<int32_t> residual;
};

// What a thread of a clocked layer works with: room for list_room(layer) rows' places, and for the start of each list.
struct Scratch {
  uint32_t* rows;
  int* starts;  // [source][step][column of the tile, and the end of the last]
  // by columns, instead of those: places, the groups of each list as [source][column][step], and sums as
  // [pixel][step][32]
  uint16_t *places, *groups, *sums;
};

[[gnu::always_inline]] inline int steps(const ClockedLayer& layer) {
  return layer.time_steps + layer.has_extended_step;
}

[[gnu::always_inline]] inline int words(int channels) { return (channels + clocked_block - 1) / clocked_block; }

// Columns of a source that the windows of `count` pixels lie in.
[[gnu::always_inline]] inline int columns(const TrainSource& source, int count) {
  return (count - 1) * source.stride + source.kernel;
}

// Rows of weights for one column of a window.
[[gnu::always_inline]] inline int rows_of_column(const TrainSource& source) {
  return source.kernel * words(source.channels) * clocked_block;
}

// Each does one row of an image, the clocked one a tile of it.
struct Kernels {
  const char* name;
  bool has_narrow_sums;  // whether products of bytes are summed in 16 bits first
  void (*analog)(const AnalogLayer& layer, int y);
  void (*phased)(const PhasedLayer& layer, int y);
  void (*integer)(const IntegerLayer& layer, int y, int block, int end);  // blocks from the one to the other
  void (*clocked)(const ClockedLayer& layer, int y, int x, const Scratch& scratch);
  void (*clocked_columns)(const ClockedLayer& layer, int y, int x, const Scratch& scratch);
  void (*clocked_few)(const ClockedLayer& layer, int y);
};

}  // namespace spikingir
