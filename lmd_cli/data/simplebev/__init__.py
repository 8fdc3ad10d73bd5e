"""nuScenes as SimpleBEV takes it: images, points of all sweeps, boxes in the reference camera."""
