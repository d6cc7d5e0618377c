"""What comes along with readings: values known in advance and features of the sensors."""
