"""From a pretrained agent to a downstream reward: prompt, search, hierarchy, fine-tuning, and training from scratch."""
