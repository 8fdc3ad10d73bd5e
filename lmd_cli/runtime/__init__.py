"""What a run computes with: device, precision, threads, CUDA graphs, memory, files, progress."""
