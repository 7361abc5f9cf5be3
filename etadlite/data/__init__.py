"""From annotation and video files to the tensors that a detector trains on."""
