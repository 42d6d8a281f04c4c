"""What is suspicious in a data set: labels that are likely wrong, copies, odd and unusable samples."""
