"""From a trained network to faces: sampling, the diffusers pipeline, the restorer."""
