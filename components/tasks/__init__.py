"""What is predicted: how a prepared data set becomes batches of prediction points."""
