"""Constants of the cost model, measured: what timings mean, and the data file of the GPU that they are of.

Nothing here touches a device: vqcc.runtime.calibration runs the micro-benchmarks.
"""
