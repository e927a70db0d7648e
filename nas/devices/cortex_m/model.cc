// A network in 8 bits, as a .tflite file.
#include "model.h"

alignas(16) const unsigned char model_data[] = {
@model@};
const unsigned int model_bytes = @model_bytes@;

alignas(16) const signed char image_data[] = {
@image@};
const unsigned int image_values = @image_values@;
