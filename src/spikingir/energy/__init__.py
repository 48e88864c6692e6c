"""Energy of an inference: counts, prices, columns A to D, and the int8 twin."""
