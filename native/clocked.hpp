// Neurons that fire step by step, whatever sums up the weights of what they see: the order of the steps, and where
// spikes go.
#pragma once

#include "kernels.hpp"
#include "vector.hpp"

namespace spikingir::SPIKINGIR_PATH {

// The pixel of the layer that a block of sums of a pixel belongs to, and the block among those of its phase; of a
// scattered block, the first of its pixels.
struct Spot {
  int y = 0, x = 0, block = 0;

  Spot() = default;
  [[gnu::always_inline]] Spot(const ClockedLayer& layer, int y, int x, int block)
      : y(y * layer.factor), x(x * layer.factor), block(block) {
    if (layer.factor == 1) return;
    const int phase = block / layer.blocks_per_phase;
    this->y += phase / layer.factor;
    this->x += phase % layer.factor;
    this->block = block % layer.blocks_per_phase;
  }
};

// Calls visit(row, column, first lane) for each pixel of the layer that a scattered block's lanes belong to.
template <class Visit>
[[gnu::always_inline]] inline void for_each_phase(const ClockedLayer& layer, const Spot& spot, const Visit& visit) {
  for (int dy = 0, lane = 0; dy < layer.factor; ++dy)
    for (int dx = 0; dx < layer.factor; ++dx, lane += layer.channels) visit(spot.y + dy, spot.x + dx, lane);
}

// The spikes of a block in a picture of trains, `at` words behind its first step.
[[gnu::always_inline]] inline uint32_t read_word(const ClockedLayer& layer, const View<const uint32_t>& view,
                                                 const Spot& spot, int at) {
  if (!layer.scattered) return view.at(spot.y, spot.x)[spot.block + at];
  uint32_t all = 0;
  for_each_phase(layer, spot, [&](int row, int column, int lane) { all |= view.at(row, column)[at] << lane; });
  return all;
}

[[gnu::always_inline]] inline void write_word(const ClockedLayer& layer, const Spot& spot, int at, uint32_t spikes) {
  if (!layer.scattered) {
    layer.spikes.at(spot.y, spot.x)[spot.block + at] = spikes;
    return;
  }
  const uint32_t mask = (uint32_t{1} << layer.channels) - 1;
  for_each_phase(layer, spot,
                 [&](int row, int column, int lane) { layer.spikes.at(row, column)[at] = spikes >> lane & mask; });
}

// The neurons of one pixel of sums, of some blocks or, with fewer vectors than a block has, of the first of one.
// reads.add(v, step) adds the weights of what they see at a step; steps come one after the other.
template <int blocks, int vectors, class Reads>
[[gnu::always_inline]] inline void fire_pixel(const ClockedLayer& layer, int y, int x, int block, Reads&& reads) {
  constexpr int count = blocks * vectors;
  const auto lane = [](int i) { return i / vectors * clocked_block + i % vectors * lanes; };
  const int channel = block * clocked_block, words = layer.blocks_per_phase, steps = layer.time_steps;
  Spot spots[blocks];
  for (int b = 0; b < blocks; ++b) spots[b] = Spot(layer, y, x, block + b);
  const int32_t* still = layer.current.at(y, x) + channel;
  Ints v[count];
#pragma GCC unroll 16
  for (int i = 0; i < count; ++i) v[i] = load<Ints>(layer.start + channel + lane(i));

  // Neurons that are delayed collect their first steps before they fire, and fire their last ones without input.
  for (int time = 0; time < steps + layer.delay + layer.has_extended_step; ++time) {
    const bool is_extended = time == steps + layer.delay;
    const int step = is_extended ? steps : time;
    if (step < steps || is_extended) {
      reads.add(v, step);
      for (int s = 0; s < layer.skips; ++s) {
        const TrainSkip& skip = layer.skip[s];
        const int32_t* scale = (is_extended ? skip.extended : skip.scale) + channel;
        for (int b = 0; b < blocks; ++b) {
          const uint32_t word = read_word(layer, skip.view, spots[b], step * words);
#pragma GCC unroll 16
          for (int i = b * vectors; i < (b + 1) * vectors; ++i)
            v[i] += lanes_of(word, lane(i) % clocked_block) & load<Ints>(scale + lane(i));
        }
      }
    }
    if (step < steps)
#pragma GCC unroll 16
      for (int i = 0; i < count; ++i) v[i] += load<Ints>(still + lane(i));
    if (time < layer.delay) continue;

    const int32_t* level = (is_extended ? layer.level : layer.threshold) + channel;
    const int32_t* amplitude = (is_extended ? layer.amplitude : layer.threshold) + channel;
    const int at = (time - layer.delay) * words * (1 + layer.has_sign);
    for (int b = 0; b < blocks; ++b) {
      uint32_t up = 0, down = 0;
#pragma GCC unroll 16
      for (int i = b * vectors; i < (b + 1) * vectors; ++i) {
        const Ints limit = load<Ints>(level + lane(i)), size = load<Ints>(amplitude + lane(i));
        const Ints above = v[i] >= limit;
        up |= bits(above) << (lane(i) % clocked_block);
        if (layer.has_sign) {
          const Ints below = v[i] <= -limit;
          down |= bits(below) << (lane(i) % clocked_block);
          v[i] += below & size;
        }
        v[i] -= above & size;
      }
      write_word(layer, spots[b], at, up);
      if (layer.has_sign) write_word(layer, spots[b], at + words, down);
    }
  }

  if (!layer.residual.first) return;
  const auto copy = [](int32_t* to, const int32_t* from, int numbers) {
    for (int i = 0; i < numbers; ++i) to[i] = from[i];
  };
  for (int b = 0; b < blocks; ++b) {
    int32_t all[clocked_block];
    for (int i = 0; i < vectors; ++i) store(all + i * lanes, v[b * vectors + i]);
    if (layer.scattered)
      for_each_phase(layer, spots[b], [&](int row, int column, int lane) {
        copy(layer.residual.at(row, column), all + lane, layer.channels);
      });
    else
      copy(layer.residual.at(spots[b].y, spots[b].x) + spots[b].block * clocked_block, all, clocked_block);
  }
}

}  // namespace spikingir::SPIKINGIR_PATH
