"""What operators launches say: how long linear layers take, where a quant overtakes, what a step would gain."""
