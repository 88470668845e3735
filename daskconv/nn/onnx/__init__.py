"""ONNX files as networks and back: images become channels last, axis 0 is that of the images."""
