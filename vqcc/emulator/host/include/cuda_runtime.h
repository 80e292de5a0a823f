// NVRTC needs no include for the runtime types; nvcc users write this one.
#pragma once
