"""SimpleBEV: cameras and point sensors lifted into voxels and fused in the bird's-eye view."""
