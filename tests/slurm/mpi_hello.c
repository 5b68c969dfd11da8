/* SPDX-License-Identifier: Apache-2.0 */
/* One line a rank, "rank R of N on HOST", after a sum over all of them: shows
 * that a launcher really made one MPI world.  Exit 1 when the sum is wrong, 7
 * when the first argument is "fail". */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    int rank = 0;
    int size = 0;
    int sum = 0;
    int name_len = 0;
    char name[MPI_MAX_PROCESSOR_NAME] = "";

    if (MPI_Init(&argc, &argv) != MPI_SUCCESS) {
        return 1;
    }
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &size);
    (void)MPI_Get_processor_name(name, &name_len);
    (void)MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    (void)printf("rank %d of %d on %s\n", rank, size, name);
    (void)MPI_Finalize();
    if (argc > 1 && strcmp(argv[1], "fail") == 0) {
        return 7;
    }
    return sum == size * (size - 1) / 2 ? 0 : 1;
}
