"""What a training step costs besides generating, and from which length on a quantization pays."""
