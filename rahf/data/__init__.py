"""Data: records, data sets, the tf.data pipeline. TensorFlow is imported below here."""
