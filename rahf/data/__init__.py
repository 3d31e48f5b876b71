"""Records, data sets and the tf.data pipeline; only this package needs TensorFlow."""
