#pragma once

extern const unsigned char model_data[];
extern const unsigned int model_bytes;
// An image as the network takes it: one, channels last, 8 bits.
extern const signed char image_data[];
extern const unsigned int image_values;
