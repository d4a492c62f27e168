"""Whether it is true: comparisons of the theory with simulations of finite networks."""
