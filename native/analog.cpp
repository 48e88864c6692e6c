// The current that the image causes: the first convolution, in double precision, where it is exact, rounded once.
#include "kernels.hpp"
#include "vector.hpp"

namespace spikingir::SPIKINGIR_PATH {

namespace {

constexpr int half_lanes = lanes / 2;
constexpr int parts = phased_block / half_lanes;
constexpr int pixels = vector_bytes == 64 ? 8 : vector_bytes == 32 ? 4 : 1;

// Halves to even, as torch does: beyond 2^52 a double has no room for a fraction.
inline Doubles rounded(Doubles x) {
  const Doubles magic = Doubles{} + 6755399441055744.0;
  return (x + magic) - magic;
}

void analog_pixels(const AnalogLayer& layer, int y, int x, int block) {
  Doubles sum[pixels][parts];
  for (int p = 0; p < pixels; ++p)
    for (int i = 0; i < parts; ++i) sum[p][i] = load<Doubles>(layer.bias + block * phased_block + i * half_lanes);
  const double* weights = layer.weights + block * layer.channels * layer.kernel * layer.kernel * phased_block;
  for (int dy = 0; dy < layer.kernel; ++dy)
    for (int dx = 0; dx < layer.kernel; ++dx)
      for (int c = 0; c < layer.channels; ++c, weights += phased_block) {
        const double* image = layer.image.at(y + dy, x + dx) + c;
        for (int i = 0; i < parts; ++i) {
          const Doubles weight = load<Doubles>(weights + i * half_lanes);
          for (int p = 0; p < pixels; ++p) sum[p][i] += weight * image[p * layer.image.pixel];
        }
      }
  for (int p = 0; p < pixels && x + p < layer.width; ++p)
    for (int i = 0; i < parts; ++i) {
      const int channel = block * phased_block + i * half_lanes;
      store(layer.current.at(y, x + p) + channel,
            __builtin_convertvector(rounded(sum[p][i]), HalfInts) + load<HalfInts>(layer.after + channel));
    }
}

}  // namespace

void analog_row(const AnalogLayer& layer, int y) {
  for (int x = 0; x < layer.width; x += pixels)
    for (int block = 0; block < layer.blocks; ++block) analog_pixels(layer, y, x, block);
}

}  // namespace spikingir::SPIKINGIR_PATH
