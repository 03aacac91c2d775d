"""The judge as a Gymnasium environment."""
