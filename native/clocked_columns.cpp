// The clocked schedule, driven by spikes, where 16 bits hold the sum of whichever weights: column by column.
//
// Spikes are read by digits of four channels: for each value that a digit may have there is a row of weights, the sum
// of those of its channels. A column's digits are listed once per step, and all windows that the column lies in read
// the list at once: rows for the columns of a window lie side by side, so that one place leads to those of up to
// `most_taps` pixels, whose sums are in the registers.
#include "clocked.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

// Sums may leave 16 bits on their way, not at its end: they are numbers modulo 2^16.
typedef uint16_t Sums __attribute__((vector_size(vector_bytes)));

constexpr int parts = clocked_block / lanes;
constexpr int halves = parts / 2;  // vectors of 16-bit numbers in a row
constexpr int row_bytes = clocked_block * static_cast<int>(sizeof(int16_t));
constexpr int most_taps = 3;

// The lists of one column, step after step, each filled up with rows of zeros to whole groups.
uint16_t* list_column(const TrainSource& source, const uint32_t* column, int steps, uint16_t* end, uint16_t* groups) {
  const int of_step = words(source.channels), size = source.kernel * row_bytes / place_bytes, kernel = source.kernel;
  const std::ptrdiff_t below = source.view.row;
  for (int step = 0; step < steps; ++step, column += of_step) {
    uint16_t* const first = end;
    const uint32_t* pixel = column;
    int row = 1;  // behind that of zeros
    for (int dy = 0; dy < kernel; ++dy, pixel += below)
      for (int word = 0; word < of_step; ++word, row += digits_of_word * sums_of_digit)
        end = append_digits(end, pixel[word], row, size);
    for (int i = 0; i < list_group; ++i) end[i] = 0;
    const std::ptrdiff_t count = (end - first + list_group - 1) / list_group;
    *groups++ = static_cast<uint16_t>(count);
    end = first + count * list_group;
  }
  return end;
}

// Adds a list's rows to the sums of `taps` pixels. From each pixel to the next one on its left, which stands `pixel`
// numbers before, the window's column is the next one on the right, whose row stands behind.
template <int taps>
[[gnu::always_inline]] inline void add_rows(const uint16_t* place, int groups, uintptr_t weights, uint16_t* sums,
                                            std::ptrdiff_t pixel) {
  const auto at = [&](int i) { return sums - i / halves * pixel + i % halves * 2 * lanes; };
  Sums sum[taps * halves];
#pragma GCC unroll 16
  for (int i = 0; i < taps * halves; ++i) sum[i] = load<Sums>(at(i));
  for (; groups > 0; --groups)
#pragma GCC unroll 8
    for (int n = 0; n < list_group; ++n) {
      uintptr_t row = weights + *place++ * std::size_t{place_bytes};
      asm("" : "+r"(row));  // computed once: an index in every load costs more
#pragma GCC unroll 16
      for (int i = 0; i < taps * halves; ++i)
        sum[i] += load<Sums>(reinterpret_cast<const char*>(row) + i * vector_bytes);
    }
#pragma GCC unroll 16
  for (int i = 0; i < taps * halves; ++i) store(at(i), sum[i]);
}

// A column's lists, step after step.
struct Lists {
  const uint16_t *place, *groups;
  int time_steps;
  bool has_extended_step;

  int steps() const { return time_steps + has_extended_step; }
  void next() { place += *groups++ * list_group; }
};

template <int taps>
[[gnu::noinline]] void add_column(Lists lists, const int16_t* weights, const int16_t* extended, uint16_t* sums) {
  const std::ptrdiff_t pixel = std::ptrdiff_t{lists.steps()} * clocked_block;
  for (int step = 0; step < lists.steps(); ++step, lists.next(), sums += clocked_block)
    add_rows<taps>(lists.place, *lists.groups,
                   reinterpret_cast<uintptr_t>(step < lists.time_steps ? weights : extended), sums, pixel);
}

// What the neurons of a pixel see.
struct Reads {
  const uint16_t* sums;
  const int32_t* unit;  // of 16 bits, so that it is a pair of itself and 0

  [[gnu::always_inline]] void add(Ints (&v)[parts], int step) const {
#pragma GCC unroll 4
    for (int i = 0; i < halves; ++i) {
      const Shorts sum = load<Shorts>(sums + step * clocked_block + i * 2 * lanes);
      v[i] = dot_pairs(v[i], low_pairs(sum, sum), load<Ints>(unit + i * lanes));
      v[halves + i] = dot_pairs(v[halves + i], high_pairs(sum, sum), load<Ints>(unit + (halves + i) * lanes));
    }
  }
};

// One block of the first `count` pixels of a tile, whose spikes are listed.
void fire_block(const ClockedLayer& layer, int y, int x, int count, int block, const Scratch& scratch) {
  Lists lists{scratch.places, scratch.groups, layer.time_steps, layer.has_extended_step};
  const int all = lists.steps();
  const std::ptrdiff_t of_pixel = std::ptrdiff_t{all} * clocked_block;
  for (int i = 0; i < count * of_pixel; ++i) scratch.sums[i] = 0;
  for (int s = 0; s < layer.sources; ++s) {
    const TrainSource source = layer.source[s];
    const std::ptrdiff_t first = (std::ptrdiff_t{block} * layer.rows + source.first) * clocked_block;
    for (int column = 0; column < columns(source, count); ++column) {
      // of the windows that the column lies in, the last one comes first
      int dx = column < count ? 0 : column - count + 1;
      const int end = column < source.kernel ? column + 1 : source.kernel;
      for (int taps; dx < end; dx += taps) {
        taps = end - dx < most_taps ? end - dx : most_taps;
        const auto add = taps == 3 ? add_column<3> : taps == 2 ? add_column<2> : add_column<1>;
        const std::ptrdiff_t at = first + dx * clocked_block;
        add(lists, layer.narrow + at, layer.narrow_extended + at, scratch.sums + (column - dx) * of_pixel);
      }
      for (int step = 0; step < all; ++step) lists.next();
    }
  }
  const ClockedLayer own = layer;  // what is written might be the other one for all that is known
  for (int p = 0; p < count; ++p)
    fire_pixel<1, parts>(own, y, x + p, block, Reads{scratch.sums + p * of_pixel, own.unit + block * clocked_block});
}

}  // namespace

void clocked_columns_tile(const ClockedLayer& layer, int y, int x, const Scratch& scratch) {
  const int count = layer.width - x < tile ? layer.width - x : tile, all = steps(layer);
  uint16_t *end = scratch.places, *groups = scratch.groups;
  for (int s = 0; s < layer.sources; ++s) {
    const TrainSource source = layer.source[s];
    for (int column = 0; column < columns(source, count); ++column, groups += all)
      end = list_column(source, source.view.at(y, x + column), all, end, groups);
  }
  for (int block = 0; block < layer.blocks; ++block) fire_block(layer, y, x, count, block, scratch);
}

}  // namespace spikingir::SPIKINGIR_PATH
